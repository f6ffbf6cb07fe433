"""HTTP/1.1 byte by byte: what libraries hide or forbid."""

import asyncio

from cases.case import Case
from clients.ask import Run
from clients.raw import Connection, chunked, one, several, told_chunks, told_half


def get(path: str, *headers: bytes, **more):
    return one(f"GET {path} HTTP/1.1".encode("latin-1"), *headers, **more)


def hints(run: Run) -> dict:
    """The upstream ends its response only when the client has the 103."""
    with Connection(run) as connection:
        connection.request(b"GET /hints HTTP/1.1")
        first = connection.informational()
        run.side.mark(1)
        if first[0] != 103:
            return {"first": first}
        return {"first": first} | connection.response()


def expecting(path: str, asked: int):
    """Sends its body only when it is asked for, or never."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            connection.request(f"POST {path} HTTP/1.1".encode(), b"content-length: 4", b"expect: 100-continue")
            if not asked:
                return connection.response()
            first = connection.informational()
            connection.send(b"body")
            return {"first": first} | connection.response()

    return client


def early(run: Run) -> dict:
    """The response comes while the body is going up; the rest of the body goes up nevertheless."""
    with Connection(run) as connection:
        connection.request(b"POST /early HTTP/1.1", b"content-length: 8", body=b"half")
        told = connection.response()
        connection.send(b"rest")
        connection.request(b"GET /plain HTTP/1.1")
        return {"first": told, "second": connection.response()}


def ping_pong(run: Run) -> dict:
    """Each chunk goes up when the one before it has come back."""
    with Connection(run) as connection:
        connection.request(b"POST /live/echo HTTP/1.1", b"transfer-encoding: chunked")
        words = [b"one", b"two " * 500, b"three"]
        connection.chunk(words[0])

        async def came(number, _):
            if number < len(words):
                connection.chunk(words[number])
            else:
                connection.send(b"0\r\n\r\n")

        return connection.response(on_chunk=came, chunks=True)


def half_close(run: Run) -> dict:
    """Nothing more will be sent, but the answer is waited for."""
    with Connection(run) as connection:
        connection.request(b"POST /echo HTTP/1.1", b"content-length: 4", body=b"last")
        connection.half_close()
        return connection.response() | {"rest": connection.rest()}


def half_close_and_wait(run: Run) -> dict:
    """The same with an upstream that takes its time."""
    with Connection(run) as connection:
        connection.request(b"GET /ponder HTTP/1.1")
        connection.half_close()
        return {"rest": connection.rest()}


def half_close_in_stream(run: Run) -> dict:
    """The same while the answer is coming."""
    with Connection(run) as connection:
        connection.request(b"GET /events HTTP/1.1")

        async def came(number, _):
            if number == 2:
                connection.half_close()
            run.side.mark(number)

        return connection.response(on_chunk=came, chunks=True)


def leave(path: str, after: str):
    """Goes away: before the head, in the middle of the response, or in the middle of its own request."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            if after == "request":
                connection.request(f"POST {path} HTTP/1.1".encode(), b"content-length: 8", body=b"half")
                run.side.wait(1)
                return {}
            connection.request(f"GET {path} HTTP/1.1".encode())
            if after == "head":
                run.side.wait(1)
                return {}
            return {"status": asyncio.run(connection.reader.head())[0].decode()}

    return client


def tunnel(line: bytes, *headers: bytes, eager: bytes = b"", half: bool = True):
    """An upgrade, and bytes to and fro."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            connection.request(line, b"connection: upgrade", b"upgrade: echo", *headers, body=eager)
            told = connection.response()
            if told.get("status") != 101:
                return told
            heard = [connection.take(6 + len(eager))]
            for word in (b"one", b"x" * 5000, b"\x00\xff\r\n"):
                connection.send(word)
                heard.append(connection.take(len(word)))
            if half:
                connection.half_close()
                heard.append(connection.rest())
            return told | {"heard": heard}

    return client


def bare(*lines: bytes, version: str = "HTTP/1.0"):
    """A request of HTTP/1.0 with only these headers."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            connection.send(b"\r\n".join([*lines, f"x-run: {run.side.run}".encode(), b"", b""]))
            told = connection.response(lines[0].split(b" ")[0].decode())
            return told | {"rest": connection.rest()}

    return client


# path, or a request line: every byte of the answer is compared.
ANSWERS = [
    "/plain /reason /reason/none /reason/latin /status/299 /status/599 /status/999 /bytes /space /repeated /204 /205 /304 /304/bare",
    "/empty /empty/chunked /close/10 /close/11 /close/length /10/length /named /chunks /both /trailers /trailers/unannounced /103 /1xx /100",
    "/challenge /426 /headers/90 /headers/big /pieces /large/300000",
]


def cases():
    def raw(name: str, client, **more) -> Case:
        return Case(name, client, "raw", "raw", **more)

    for path in " ".join(ANSWERS).split():
        yield raw(f"answer {path}", get(path))
    yield raw("trailers, asked for", get("/trailers", b"te: trailers", b"connection: te"))
    yield raw("names of headers as written", get("/case", names=True))
    for path in ("/head", "/head/chunked", "/head/bare", "/304"):
        yield raw(f"HEAD {path}", one(f"HEAD {path} HTTP/1.1".encode()))
    for path in ("/events", "/parts"):
        yield raw(f"chunks as sent {path}", told_chunks(f"GET {path} HTTP/1.1".encode()))
    yield raw("103 before the end", hints)

    yield raw("100-continue, asked", expecting("/expect", 1))
    yield raw("100-continue, refused", expecting("/refuse", 0))
    yield raw("response before the request's end", early)
    yield raw("chunks to and fro", ping_pong)
    yield raw("half-close after the request", half_close)
    yield raw("half-close, and a long wait", half_close_and_wait)
    yield raw("half-close in the response", half_close_in_stream)

    for where, how in [(w, h) for w in ("length", "chunked", "chunk") for h in ("close", "reset")]:
        yield raw(f"upstream breaks {where} by {how}", told_half(f"GET /abort/{where}/{how} HTTP/1.1".encode()))
    for where in ("nothing", "head"):
        yield raw(f"upstream breaks before the head ({where})", get(f"/abort/{where}/close", rest=False))
    yield raw("client leaves before the head", leave("/hang", "head"))
    yield raw("client leaves in the response", leave("/stream", "response"))
    yield raw("client leaves in its request", leave("/upload", "request"))

    yield raw("one after the other", several(*[f"{m} HTTP/1.1".encode() for m in KEPT]), notes=len(KEPT))
    yield raw("pipelined", several(b"GET /plain HTTP/1.1", b"GET /chunks HTTP/1.1", b"GET /204 HTTP/1.1", pipelined=True), notes=3)
    yield raw("connection: close from the client", get("/plain", b"connection: close", rest=True))
    yield raw("HTTP/1.0", bare(b"GET /plain HTTP/1.0", b"host: legacy"))
    yield raw("HTTP/1.0 without a host", bare(b"GET /plain HTTP/1.0"))
    yield raw("HTTP/1.0, chunks from the upstream", bare(b"GET /chunks HTTP/1.0", b"host: legacy"))
    yield raw("HTTP/1.0, until the end", bare(b"GET /close/10 HTTP/1.0", b"host: legacy"))
    yield raw("HTTP/1.0 with a body", one(b"POST /echo HTTP/1.0", b"host: legacy", b"content-length: 4", body=b"body"))

    yield raw("upgrade", tunnel(b"GET /upgrade HTTP/1.1"))
    yield raw("upgrade, bytes at once", tunnel(b"GET /upgrade HTTP/1.1", eager=b"eager "))
    yield raw("upgrade, client leaves", tunnel(b"GET /upgrade HTTP/1.1", half=False))
    yield raw("upgrade, refused", tunnel(b"GET /plain HTTP/1.1"))
    yield raw("upgrade after a body", tunnel(b"POST /upgrade HTTP/1.1", b"content-length: 0"))

    for target in TARGETS:
        yield raw(f"target {target.decode('latin-1')}"[:60], one(b"GET " + target + b" HTTP/1.1"))
    yield raw("target, absolute", one(b"GET http://example.test/plain?a=1 HTTP/1.1"))
    yield raw("OPTIONS *", one(b"OPTIONS * HTTP/1.1"))
    for method in ("PURGE", "M-SEARCH", "get", "VERSION-CONTROL"):
        yield raw(f"method {method}", one(f"{method} /plain HTTP/1.1".encode()))
    yield raw("CONNECT", one(b"CONNECT example.test:443 HTTP/1.1"))

    yield raw("request header bytes", get("/plain", b"x-latin: caf\xe9", b"x-high: \x80\xff", b"x-empty:", b"x-wide:  a  b\tc  "))
    yield raw("request headers repeated", get("/plain", b"x-a: 1", b"cookie: a=1", b"x-b: 1", b"x-a: 2", b"cookie: b=2", b"x-a:"))
    yield raw("request headers, 90", get("/plain", *[b"x-%d: %d" % (n, n) for n in range(88)]))
    yield raw("request header, 30 kB", get("/plain", b"x-big: " + b"b" * 30_000))
    named = (b"connection: x-hop, keep-alive", b"x-hop: 1", b"keep-alive: 5", b"x-end: 1")
    yield raw("request headers named by connection", get("/plain", *named))
    yield raw("forwarded headers of a proxy before", get("/plain", b"forwarded: for=192.0.2.1", b"via: 1.1 before"))
    yield raw("te: gzip", get("/plain", b"te: gzip;q=0.5, trailers", b"connection: te"))

    post = b"POST /echo HTTP/1.1"
    yield raw("body, length", one(post, b"content-length: 4", body=b"body"))
    yield raw("body, length 0", one(post, b"content-length: 0"))
    yield raw("body, none", one(post))
    yield raw("body, chunked", chunked(post, b"one", b"two" * 300, b"three"))
    yield raw("body, chunked, empty", chunked(post))
    trailers = b"x-sum: 1\r\nx-sum: 2\r\nx-end: 3\r\n"
    yield raw("body, chunked, with trailers", chunked(post, b"one", headers=(b"trailer: x-sum",), trailers=trailers))
    yield raw("body, chunk by chunk", chunked(b"POST /upload HTTP/1.1", b"one", b"two" * 300, b"three", paced=True))
    yield raw("body of a GET", one(b"GET /echo HTTP/1.1", b"content-length: 4", body=b"body"))
    yield raw("body of a GET, chunked", chunked(b"GET /echo HTTP/1.1", b"one"))
    yield raw("body of a DELETE", one(b"DELETE /echo HTTP/1.1", b"content-length: 4", body=b"body"))


# Each must leave the connection where the next can begin.
KEPT = ["HEAD /head", "GET /304", "GET /204", "GET /empty/chunked", "GET /chunks", "HEAD /head/chunked", "GET /repeated", "GET /plain"]

TARGETS = [
    b"/a%2Fb//c/./../d;p=1?x=1?y=2&z=%zz&",
    b"/plain?",
    b"//plain",
    b"/%00%ff",
    b"/~'()*!$&,:@",
    b'/{"a"}|[b]^\\?{a}|[b]^\\`',
    "/café?café".encode(),
    "/café".encode("latin-1"),
    b"/`",
    b"/<a>",
    b'/?"a"',
    b"/plain#part",
    b"/long/" + b"a" * 8000,
]
