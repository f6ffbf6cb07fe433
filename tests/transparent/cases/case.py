"""A case: one conversation, had twice."""

from collections.abc import Callable
from dataclasses import dataclass

from clients.ask import Run


@dataclass(frozen=True)
class Case:
    name: str
    client: Callable[[Run], dict]
    # What the client is called in the table.
    using: str
    # The program behind the proxy: see `serve.py`.
    program: str
    # What the client speaks: "h1" or "h2", over TLS or not.
    speaks: str = "h1"
    tls: bool = False
    # What the proxy speaks to the program: "h1", "h2c" or "tls" (where it agrees on HTTP/2, if the program can).
    upstream: str = "h1"
    # How many requests the upstream notes.
    notes: int = 1
    # Events come at their own pace: the medians of the gaps are compared too.
    timed: bool = False

    @property
    def way(self) -> str:
        return f"{self.speaks}{'s' if self.tls else ''}>{self.upstream}"

    @property
    def to_upstream(self) -> str:
        """What the proxy speaks to the program: over TLS HTTP/2, because all of these programs agree on that."""
        return "h1" if self.upstream == "h1" else "h2"

    @property
    def group(self) -> str:
        """What can be chosen with `--only`."""
        if self.tls or self.upstream == "tls":
            return "tls"
        if self.program == "grpc":
            return "grpc"
        if self.speaks == "h2" or self.upstream == "h2c":
            return "h2"
        return "upgrade" if self.using == "websockets" or "upgrade" in self.name else "h1"

    @property
    def key(self) -> str:
        """Its name among all cases."""
        return f"{self.name} ({self.using}, {self.program}, {self.way})"
