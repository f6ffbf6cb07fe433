"""HTTP/1.1 as bytes, for the upstream and the client that do what libraries hide or forbid."""

from shapes import digest


class Broken(Exception):
    """The message ended before its end; the text says how."""


def fields(lines: list[bytes]) -> list[tuple[str, str]]:
    """Names in lower case, values as Latin-1, so that no byte is lost."""
    pairs = [line.split(b":", 1) for line in lines if line]
    return [(name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")) for name, value in pairs]


class Body:
    """A body and how it was framed."""

    def __init__(self, framing: str):
        self.framing = framing
        self.data = bytearray()
        self.chunks: list[bytes] = []
        self.trailers: list[tuple[str, str]] = []
        self.error: str | None = None

    def told(self) -> dict:
        return {"framing": self.framing, "body": digest(bytes(self.data)), "trailers": self.trailers, "error": self.error}


class Reader:
    """Reads messages from `receive()`, an async function that returns b"" at the end of the stream."""

    def __init__(self, receive):
        self.receive = receive
        self.buffer = b""

    async def _more(self) -> None:
        try:
            got = await self.receive()
        except ConnectionError:
            raise Broken("reset") from None
        if not got:
            raise Broken("ended")
        self.buffer += got

    async def line(self) -> bytes:
        while b"\n" not in self.buffer:
            await self._more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    async def exactly(self, size: int, on=None) -> bytes:
        """So many bytes; `on` is told of each part as it comes, also of those before a break."""
        got = b""
        while True:
            part, self.buffer = self.buffer[: size - len(got)], self.buffer[size - len(got) :]
            got += part
            if on and part:
                on(part)
            if len(got) == size:
                return got
            await self._more()

    async def head(self) -> tuple[bytes, list[bytes]]:
        """The first line and the others."""
        first = await self.line()
        lines = []
        while line := await self.line():
            lines.append(line)
        return first, lines

    async def body(self, headers: list[tuple[str, str]], until_close: bool, on_chunk=None, on_part=None) -> Body:
        """The body that these headers announce. A break is told in the body. `on_chunk` is awaited with each chunk (or
        part), `on_part` called for each part of a chunk."""
        values = dict(headers)
        if values.get("transfer-encoding", "").lower() == "chunked":
            body = Body("chunked")
            reading = self._chunked(body, on_chunk, on_part)
        elif "content-length" in values:
            body = Body("length")
            reading = self._parts(body, int(values["content-length"]), on_chunk)
        elif until_close:
            body = Body("close")
            reading = self._parts(body, None, on_chunk)
        else:
            return Body("none")
        try:
            await reading
        except Broken as broken:
            body.error = str(broken)
        return body

    async def _chunked(self, body: Body, on_chunk, on_part) -> None:
        def came(part: bytes) -> None:
            body.data.extend(part)
            if on_part:
                on_part()

        while size := int((await self.line()).split(b";")[0], 16):
            chunk = await self.exactly(size, came)
            body.chunks.append(chunk)
            await self.line()
            if on_chunk:
                await on_chunk(len(body.chunks), chunk)
        lines = []
        while line := await self.line():
            lines.append(line)
        body.trailers = fields(lines)

    async def _parts(self, body: Body, size: int | None, on_chunk) -> None:
        while size is None or len(body.data) < size:
            if not self.buffer:
                try:
                    await self._more()
                except Broken as broken:
                    if size is None and str(broken) == "ended":
                        return
                    raise
            left = len(self.buffer) if size is None else size - len(body.data)
            part, self.buffer = self.buffer[:left], self.buffer[left:]
            body.data.extend(part)
            body.chunks.append(part)
            if on_chunk:
                await on_chunk(len(body.chunks), part)
