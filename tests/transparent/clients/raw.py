"""A client that sends what it is told, byte by byte, and tells what came back with its framing."""

import asyncio
import socket
import ssl

from clients.ask import Run
from wire import Body, Broken, Reader, fields

LIMIT = 6


class Connection:
    """One connection. Everything blocks, up to `LIMIT`."""

    def __init__(self, run: Run):
        self.run = run
        target = run.target
        self.socket = socket.create_connection((target.host, target.port), LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls:
            context = ssl.create_default_context(cafile=target.ca)
            self.socket = context.wrap_socket(self.socket, server_hostname=target.host)
        self.reader = Reader(self._receive)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    async def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except TimeoutError:
            raise Broken("nothing came") from None

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, line: bytes, *headers: bytes, body: bytes = b"") -> None:
        """A request with its `Host` and the run's marker."""
        self.send(self.head(line, *headers) + body)

    def head(self, line: bytes, *headers: bytes) -> bytes:
        marker = f"x-run: {self.run.side.run}".encode()
        if not line.endswith(b"HTTP/1.0"):
            headers = (f"host: {self.run.target.authority}".encode(), *headers)
        return b"\r\n".join([line, *headers, marker, b"", b""])

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def informational(self) -> tuple[int, list]:
        """The next head, which must be a 1xx."""
        first, lines = asyncio.run(self.reader.head())
        return int(first.split(b" ")[1]), fields(lines)

    def response(self, method: str = "GET", names: bool = False, chunks: bool = False, **on) -> dict:
        """The next response with all the 1xx before it; its header names as written, and the sizes of its chunks, where asked for."""
        return asyncio.run(self._response(method, names, chunks, on))

    async def _response(self, method: str, names: bool, chunks: bool, on: dict) -> dict:
        told = {"informational": []}
        while True:
            try:
                first, lines = await self.reader.head()
            except Broken as broken:
                return told | {"error": f"{broken} before the head"}
            version, status, reason = (first.decode("latin-1").split(" ", 2) + ["", ""])[:3]
            if int(status) >= 200 or status == "101":
                break
            told["informational"].append((int(status), fields(lines)))
        told |= {"version": version, "status": int(status), "reason": reason, "headers": fields(lines)}
        if names:
            told["names"] = sorted(line.split(b":")[0].decode("latin-1") for line in lines)
        if method == "HEAD" or status in ("204", "304", "101"):
            body = Body("none")
        else:
            body = await self.reader.body(told["headers"], until_close=True, **on)
        if chunks:
            told["chunks"] = [len(chunk) for chunk in body.chunks]
        return told | body.told()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> str:
        """What comes until the end of the connection, and how that ends."""
        got, self.reader.buffer = self.reader.buffer, b""
        end = "ended"
        try:
            while part := asyncio.run(self._receive()):
                got += part
        except ConnectionError:
            end = "reset"
        except Broken as broken:
            end = str(broken)
        return f"{got.decode('latin-1')}[{end}]"

    def take(self, size: int) -> str:
        return asyncio.run(self.reader.exactly(size)).decode("latin-1")


def one(line: bytes, *headers: bytes, body: bytes = b"", rest: bool = False, **reading):
    """One request, one response; with `rest` also how the connection ends."""
    method = line.split(b" ")[0].decode("latin-1")

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            connection.request(line, *headers, body=body)
            told = connection.response(method, **reading)
            if rest:
                told["rest"] = connection.rest()
            return told

    return client


def several(*lines: bytes, pipelined: bool = False):
    """Several requests on one connection: one after the other, or all at once."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            answers = []
            if pipelined:
                connection.send(b"".join(connection.head(line) for line in lines))
            for line in lines:
                if not pipelined:
                    connection.request(line)
                answers.append(connection.response(line.split(b" ")[0].decode()))
            return {"answers": answers}

    return client


def chunked(line: bytes, *chunks: bytes, headers: tuple[bytes, ...] = (), trailers: bytes = b"", paced: bool = False):
    """A chunked request; with `paced` each chunk goes when the upstream has the one before it."""

    def client(run: Run) -> dict:
        with Connection(run) as connection:
            connection.request(line, b"transfer-encoding: chunked", *headers)
            for number, chunk in enumerate(chunks, 1):
                connection.chunk(chunk)
                if paced and not run.side.wait(number):
                    return {"error": f"chunk {number} did not arrive"}
            connection.send(b"0\r\n" + trailers + b"\r\n")
            return connection.response()

    return client


def told_chunks(line: bytes):
    """Tells the upstream of each chunk (or part) of the response."""

    def client(run: Run) -> dict:
        async def came(number, _):
            run.side.mark(number)

        with Connection(run) as connection:
            connection.request(line)
            return connection.response(on_chunk=came, chunks=True)

    return client


def told_half(line: bytes):
    """Tells the upstream that the first half of the response is there."""

    def client(run: Run) -> dict:
        async def came(*_):
            run.side.mark(1)

        with Connection(run) as connection:
            connection.request(line)
            return connection.response(on_chunk=came, on_part=lambda: run.side.mark(1))

    return client
