"""What a case asks for, the same for every client library, and what a client tells of the answer."""

import socket
import time
from dataclasses import dataclass, field

from board import Side
from shapes import digest


@dataclass(frozen=True)
class Ask:
    """A request, and how its response is read."""

    path: str = "/json"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    # A list is sent in parts of unknown total length; with `paced` each part waits until the upstream has the one before it.
    body: bytes | list[bytes] | None = None
    paced: bool = False
    trailers: tuple[tuple[str, str], ...] = ()
    # "all"; "events": each is told to the upstream, which waits for that; "first": only the first part is; "leave": goes away then.
    read: str = "all"
    # Send the next part of the body when the part before it has come back.
    ping_pong: bool = False
    # Leave while the response's head hasn't come, once the upstream has the request.
    leave_early: bool = False
    # How long the whole may take, in s.
    patience: float = 6


@dataclass
class Target:
    """Where a case goes: the upstream itself, or the proxy before it."""

    address: str
    tls: bool
    # "h1" or "h2"
    speaks: str
    ca: str
    proxied: bool = False

    @property
    def host(self) -> str:
        # Certificates are for the name.
        return "localhost" if self.tls else "127.0.0.1"

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    def listens(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True

    @property
    def base(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.authority}"


@dataclass
class Run:
    """One run of a case, against one target."""

    target: Target
    side: Side
    node: object
    gaps: list[float] = field(default_factory=list)

    @property
    def marker(self) -> tuple[str, str]:
        """The header by which the upstream knows the run."""
        return ("x-run", self.side.run)


class Arrivals:
    """The parts of a body as they come: whole events, where that is asked for, each told to the upstream."""

    def __init__(self, run: Run, ask: Ask):
        self.run, self.ask = run, ask
        self.body = bytearray()
        self.events: list[str] = []
        self._rest = b""
        self._last = None

    def came(self, part: bytes) -> None:
        self.body.extend(part)
        if self.ask.read in ("first", "leave"):
            self.run.side.mark(1)
        if self.ask.read != "events":
            return
        *events, self._rest = (self._rest + part).split(b"\n\n")
        for event in events:
            now = time.perf_counter()
            if self._last is not None:
                self.run.gaps.append((now - self._last) * 1000)
            self.events.append(event.decode("latin-1"))
            self.run.side.mark(len(self.events))
            self._last = now

    def told(self) -> dict:
        told = {"body": digest(bytes(self.body))}
        if self.ask.read == "events":
            told["events"] = self.events
        return told


def latin(pairs) -> list[tuple[str, str]]:
    """Headers of bytes as text, names in lower case."""
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in pairs]


def parts(ask: Ask, run: Run):
    """The parts of a body, in the pace that is asked for."""
    for number, part in enumerate(ask.body, 1):
        yield part
        if ask.paced and not run.side.wait(number):
            raise TimeoutError("the upstream has not got this part")
