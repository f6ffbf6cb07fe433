"""The side channel between clients and upstreams, past the proxy.

A mark is a number that only grows: a client marks the event that it has, and the upstream sends the next one only then. So a proxy
that holds anything back stops the case; no clock has to tell it from one that doesn't. A note is what an upstream saw of a request.
"""

import asyncio
import json
import socket
from collections import defaultdict

# Only reached where something is held back, or lost.
LIMIT = 4.0
# The same where that is known to happen.
SHORT_LIMIT = 1.5


class Board:
    """The upstreams' side, and the server that clients (and Node) ask: one line of JSON each way per connection."""

    def __init__(self):
        self._marks = defaultdict(int)
        self._notes = defaultdict(list)
        self._changed = asyncio.Event()

    # No lock, and nothing of its own that a cancelled wait would have to end: servers cancel their handlers again and again until they
    # are gone, and a lock that is being taken just then stays taken.

    async def mark(self, key: str, number: int) -> None:
        self._marks[key] = max(self._marks[key], number)
        self._tell()

    async def wait(self, key: str, number: int, limit: float = LIMIT) -> bool:
        """Whether the mark was there in time."""
        return await self._until(lambda: self._marks[key] >= number, limit)

    async def note(self, run: str, what: dict) -> None:
        self._notes[run].append(what)
        self._tell()

    def _tell(self) -> None:
        """Wakes all that wait now; who waits later waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition, limit: float) -> bool:
        async def holds():
            while not condition():
                await self._changed.wait()

        try:
            await asyncio.wait_for(holds(), limit)
        except TimeoutError:
            return False
        return True

    async def _answer(self, ask: dict):
        match ask:
            case {"mark": key, "number": number}:
                return await self.mark(key, number)
            case {"wait": key, "number": number}:
                return await self.wait(key, number, ask.get("limit", LIMIT))
            case {"note": run, "what": what}:
                return await self.note(run, what)
            case {"notes": run, "count": count, "limit": limit}:
                await self._until(lambda: len(self._notes[run]) >= count, limit)
                return self._notes[run]
            case _:
                raise ValueError(f"nobody understands {ask}")

    async def listen(self) -> str:
        async def serve(reader, writer):
            answer = await self._answer(json.loads(await reader.readline()))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Side:
    """The clients' side, for one run."""

    def __init__(self, address: str, run: str):
        self.address = address
        self.run = run

    def _ask(self, what: dict):
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), LIMIT * 3) as stream:
            stream.sendall(json.dumps(what).encode() + b"\n")
            return json.loads(stream.makefile().readline())

    def mark(self, number: int) -> None:
        """The client has so many events."""
        self._ask({"mark": self.run, "number": number})

    def wait(self, number: int) -> bool:
        """Waits until the upstream has so many parts of the request."""
        return self._ask({"wait": f"{self.run}/up", "number": number})

    def notes(self, count: int, limit: float = LIMIT) -> list[dict]:
        """What the upstream saw, once it has noted so many requests."""
        return self._ask({"notes": self.run, "count": count, "limit": limit})
