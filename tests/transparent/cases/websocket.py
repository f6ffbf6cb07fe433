"""WebSocket conversations."""

from cases.case import Case
from clients.with_websockets import converse
from shapes import large

TALKS = {
    "text and binary": converse("hello", b"\x00\xff", "naïve – 日本", ""),
    "large messages": converse(large(0, 300_000), large(0, 3_000_000).decode()),
    "without compression": converse("hello", large(0, 100_000), compression=None),
    "subprotocol": converse("hello", subprotocols=["first", "third"]),
    "path and query": converse("hello", path="/a%2Fb?x=1"),
    "ping from the upstream": converse("ping, please"),
    "fragments": converse("in parts, please"),
    "closed by the upstream": converse("hello", "close, please"),
    "broken by the upstream": converse("hello", "break, please"),
    "left by the client": converse("hello", leave=True),
}


def cases():
    for name, talk in TALKS.items():
        yield Case(name, talk, "websockets", "websocket")
    yield Case("refused", converse(path="/forbidden"), "websockets", "websocket", notes=0)
    yield Case("broken after the handshake", converse("hello", path="/websocket"), "websockets", "raw")
    for name in ("text and binary", "large messages", "closed by the upstream"):
        yield Case(name, TALKS[name], "websockets", "websocket", "h1", True, "h1")
