"""The odd answers: each a few bytes, or a function that converses."""

import asyncio
import base64
import hashlib

from board import SHORT_LIMIT
from shapes import large

OK = b"HTTP/1.1 200 OK\r\n"

# path: bytes; what has no length of its own is followed by the end of the connection.
FIXED = {
    "/plain": OK + b"content-length: 2\r\nx-from: upstream\r\n\r\nok",
    "/reason": b"HTTP/1.1 200 Fine By Me\r\ncontent-length: 2\r\n\r\nok",
    "/reason/none": b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok",
    "/reason/latin": b"HTTP/1.1 404 Nicht gefund\xe9n\r\ncontent-length: 2\r\n\r\nno",
    "/status/299": b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok",
    "/status/599": b"HTTP/1.1 599 Odder\r\ncontent-length: 2\r\n\r\nno",
    "/status/999": b"HTTP/1.1 999 Oddest\r\ncontent-length: 2\r\n\r\nno",
    "/bytes": OK + b"x-latin: caf\xe9\r\nx-utf: caf\xc3\xa9\r\nx-high: \x80\xff\xfe\r\ncontent-length: 2\r\n\r\nok",
    "/space": OK + b"x-empty:\r\nx-blank:   \r\nx-wide:  a  b\tc  \r\ncontent-length: 2\r\n\r\nok",
    "/case": OK + b"X-MiXed: 1\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\nok",
    "/repeated": OK
    + b"set-cookie: a=1\r\nx-a: 1\r\nset-cookie: b=2, c\r\nx-b: 1\r\nx-a: 2\r\nx-a:\r\nx-a: 1, 3\r\nset-cookie: a=1\r\n"
    + b"content-length: 2\r\n\r\nok",
    "/204": b"HTTP/1.1 204 No Content\r\nx-from: upstream\r\n\r\n",
    "/205": b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
    "/304": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"1\"\r\n\r\n",
    "/304/bare": b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
    "/empty": OK + b"content-length: 0\r\n\r\n",
    "/empty/chunked": OK + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "/head": OK + b"content-length: 4321\r\n\r\n",
    "/head/chunked": OK + b"transfer-encoding: chunked\r\n\r\n",
    "/head/bare": OK + b"x-from: upstream\r\n\r\n",
    "/close/10": b"HTTP/1.0 200 OK\r\nx-from: upstream\r\n\r\nuntil the end",
    "/close/11": OK + b"connection: close\r\n\r\nuntil the end",
    "/close/length": OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
    "/10/length": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "/named": OK
    + b"connection: x-hop, X-Other\r\nconnection: x-third\r\nx-hop: 1\r\nx-other: 1\r\nx-third: 1\r\nx-end: 1\r\ncontent-length: 2\r\n\r\nok",
    "/chunks": OK + b"transfer-encoding: chunked\r\n\r\n3;name=value\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
    "/both": OK + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "/trailers": OK
    + b"trailer: x-sum, x-end\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\nx-end: caf\xe9\r\n\r\n",
    "/trailers/unannounced": OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
    "/103": b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok",
    "/1xx": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-n: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-n: 2\r\n\r\n"
    + OK
    + b"content-length: 2\r\n\r\nok",
    "/100": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok",
    "/challenge": b"HTTP/1.1 401 Unauthorized\r\n"
    + b"www-authenticate: Basic realm=\"a\"\r\nwww-authenticate: Bearer\r\ncontent-length: 2\r\n\r\nno",
    "/426": b"HTTP/1.1 426 Upgrade Required\r\nupgrade: echo\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno",
    "/headers/90": OK + b"".join(b"x-%d: %d\r\n" % (n, n) for n in range(89)) + b"content-length: 2\r\n\r\nok",
    "/headers/big": OK + b"x-big: " + b"b" * 30_000 + b"\r\ncontent-length: 2\r\n\r\nok",
}

ENDS = {"/close/10", "/close/11", "/close/length", "/10/length"}


async def fixed(x):
    path = x.target.split("?")[0]
    await x.read()
    await x.send(FIXED.get(path, FIXED["/plain"]))
    if path in ENDS:
        x.close()


async def echo(x):
    """What came, once all of it came."""
    await x.read()
    await x.answer(x.seen["body"].encode("latin-1"))


async def hints(x):
    """The last word comes only when the client has the 103."""
    await x.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")
    await x.answer(b"seen" if await x.wait(1, SHORT_LIMIT) else b"held back")


async def expect(x):
    """Asks for the body, as the client expects."""
    await x.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await x.read()
    await x.answer(x.seen["body"].encode("latin-1"))


async def refuse(x):
    """Doesn't want the body."""
    await x.answer(b"no", b"HTTP/1.1 417 Expectation Failed\r\nconnection: close\r\n")
    x.close()


async def early(x):
    """Answers while the body is still coming, then takes the rest of it."""
    await x.answer(b"early", b"HTTP/1.1 413 Content Too Large\r\n")
    await x.read()


async def live_echo(x):
    """Answers at once and gives each chunk back as it comes."""
    await x.send(OK + b"transfer-encoding: chunked\r\n\r\n")

    async def back(_, chunk):
        await x.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    await x.read(back)
    await x.send(b"0\r\n\r\n")


async def upload(x):
    """Marks each chunk as it comes."""

    async def came(number, _):
        await x.mark(number)

    await x.read(came)
    await x.answer(x.seen["body"].encode("latin-1"))


async def pieces(x):
    """A head that comes in pieces."""
    for at in range(len(FIXED["/103"])):
        await x.send(FIXED["/103"][at : at + 1])


async def events(x):
    """Chunks, each only when the client has the one before it."""
    await x.send(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for number, size in enumerate((1, 200, 17, 4000, 3), 1):
        await x.send(b"%x\r\n%b\r\n" % (size, large(0, size)))
        if not await x.wait(number):
            return x.reset()
    await x.send(b"0\r\n\r\n")


async def parts(x):
    """The same with a length."""
    await x.send(OK + b"content-length: 30\r\n\r\n")
    for number in (1, 2, 3):
        await x.send(large(0, 10))
        if not await x.wait(number):
            return x.reset()


async def abort(x):
    """Half a message, and once the client has that half: `close` or `reset`; framed by `length`, `chunked` or in the head."""
    _, _, where, how = x.target.split("?")[0].split("/")
    half = {
        "nothing": b"",
        "head": OK + b"x-half:",
        "length": OK + b"content-length: 10\r\n\r\nhalf",
        "chunked": OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "chunk": OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhalf",
    }
    await x.send(half[where])
    if where not in ("nothing", "head"):
        await x.wait(1)
    x.reset() if how == "reset" else x.close()


async def hang(x):
    """Takes the request, and waits until the client leaves."""
    await x.mark(1)
    x.seen["left"] = await x.left()
    x.close()


async def ponder(x):
    """Answers long after the client has closed its half."""
    await x.left()
    await asyncio.sleep(2.5)
    try:
        await x.send(OK + b"content-length: 4\r\n\r\nlate")
    except ConnectionError:
        pass
    x.close()


async def stream_until_left(x):
    """Streams until the client leaves."""
    await x.send(OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    x.seen["left"] = await x.left()
    x.close()


async def upgrade(x):
    """Switches to a protocol that gives every byte back and says goodbye at the end."""
    await x.send(b"HTTP/1.1 101 Now Echo\r\nupgrade: echo\r\nconnection: upgrade\r\nx-from: upstream\r\n\r\nhello ")
    got = bytearray(x.reader.buffer)
    if got:
        await x.send(bytes(got))
    try:
        while part := await x.reader.receive():
            got += part
            await x.send(part)
        await x.send(b" bye")
    except ConnectionError:
        x.seen["left"] = True
    x.seen["tunnel"] = got.decode("latin-1")
    x.close()


async def websocket(x):
    """Takes the handshake, and ends the connection without a word."""
    key = dict(x.headers)["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
    await x.send(head + accept + b"\r\n\r\n")
    x.reset()


async def large_body(x):
    size = int(x.target.rsplit("/", 1)[1])
    await x.send(OK + b"content-length: %d\r\n\r\n" % size)
    for at in range(0, size, 1 << 16):
        await x.send(large(at, min(1 << 16, size - at)))


FUNCTIONS = {
    "/echo": echo,
    "/hints": hints,
    "/expect": expect,
    "/refuse": refuse,
    "/early": early,
    "/ponder": ponder,
    "/live/echo": live_echo,
    "/upload": upload,
    "/pieces": pieces,
    "/events": events,
    "/parts": parts,
    "/abort": abort,
    "/hang": hang,
    "/stream": stream_until_left,
    "/upgrade": upgrade,
    "/websocket": websocket,
    "/large": large_body,
}


def find(path: str):
    """The script of a path: its own, else that of the first part of it."""
    if path in FIXED:
        return fixed
    return FUNCTIONS.get(path) or FUNCTIONS.get("/".join(path.split("/")[:2]), fixed)
