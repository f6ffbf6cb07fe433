"""An upstream that writes what a script says, byte by byte: see `odd.py`."""

import asyncio
import socket
import struct

from board import LIMIT
from upstreams import odd
from wire import Broken, Reader, fields


class Exchange:
    """One request, and the way to answer it."""

    def __init__(self, board, reader: Reader, writer, first: bytes, lines: list[bytes]):
        self.board, self.reader, self.writer = board, reader, writer
        self.method, self.target, self.version = (first.decode("latin-1").split(" ", 2) + ["", ""])[:3]
        self.headers = fields(lines)
        self.run = dict(self.headers).get("x-run", "")
        self.seen = {"method": self.method, "target": self.target, "headers": self.headers}
        values = dict(self.headers)
        self.open = self.version != "HTTP/1.0" and values.get("connection") != "close"

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", head: bytes = b"HTTP/1.1 200 OK\r\n") -> None:
        await self.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)

    async def read(self, on_chunk=None) -> None:
        """The request's body."""
        body = await self.reader.body(self.headers, until_close=False, on_chunk=on_chunk)
        self.seen |= body.told()
        if body.error:
            self.seen["error"], self.seen["left"] = None, True
            self.open = False

    async def wait(self, number: int, limit: float = LIMIT) -> bool:
        return await self.board.wait(self.run, number, limit)

    async def mark(self, number: int) -> None:
        await self.board.mark(f"{self.run}/up", number)

    async def left(self) -> bool:
        """Waits until the client has left."""
        try:
            async with asyncio.timeout(4):
                await self.reader._more()
        except Broken:
            return True
        except TimeoutError:
            pass
        return False

    def close(self) -> None:
        self.open = False

    def reset(self) -> None:
        self.open = False
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def converse(board, stream, writer) -> None:
    reader = Reader(lambda: stream.read(1 << 16))
    going = True
    while going:
        try:
            first, lines = await reader.head()
        except Broken:
            break
        exchange = Exchange(board, reader, writer, first, lines)
        path = exchange.target.split("?")[0]
        try:
            await odd.find(path)(exchange)
        except (Broken, ConnectionError):
            exchange.seen["left"] = True
            exchange.open = False
        await board.note(exchange.run, exchange.seen)
        going = exchange.open
    writer.close()


async def serve(board) -> str:
    async def on_connection(stream, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await converse(board, stream, writer)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
