"""HTTP/2 on either side or on both, and TLS."""

from cases.case import Case
from cases.libraries import EVERYWHERE, ONCE, PARTS, ask
from clients import with_httpx, with_node
from clients.with_aiohttp import with_aiohttp
from clients.with_curl import curl
from clients.with_httpx import with_httpx as httpx
from shapes import LINE, large

CRUMBS = (("cookie", "a=1"), ("cookie", "b=2"))

# With Node on both ends, whose HTTP/2 hides nothing.
NODE = {
    "json": {},
    "echo": dict(path="/echo", method="POST", body=b"echo"),
    "length": dict(path="/length", method="POST", body=large(0, 100_000)),
    "HEAD": dict(method="HEAD"),
    "204": dict(path="/status/204"),
    "304": dict(path="/304"),
    "empty": dict(path="/empty"),
    "repeated headers": dict(path="/repeated"),
    "cookie crumbs": dict(path="/echo", headers=CRUMBS),
    "path with escapes": dict(path="/echo/a%2Fb//c?x=1?y=%zz&"),
    "103": dict(path="/hints"),
    "100-continue": dict(path="/echo", method="POST", body=[b"wanted"], headers=(("expect", "100-continue"),), patience=1.5),
    "trailers": dict(path="/trailers", headers=(("te", "trailers"),)),
    "trailers only": dict(path="/trailers/only", headers=(("te", "trailers"),)),
    "trailers up": dict(path="/echo", method="POST", body=PARTS, trailers=(("x-sum", "abc"), ("x-end", "1"))),
    "echo to and fro": dict(path="/live/echo", method="POST", body=PARTS, ping_pong=True),
    "parts in pace": dict(path="/upload", method="POST", body=[b"one", b"two", b"three"], paced=True),
    "events": dict(path="/events", read="events"),
    "down 3 MB": dict(path="/large/3000000"),
    "up 3 MB": dict(path="/echo", method="POST", body=[large(n, 30_000) for n in range(100)]),
    "early response": dict(path="/early", method="POST", body=LINE * 2000),
    "client leaves": dict(path="/stream", read="leave"),
    "client leaves before the head": dict(path="/hang", leave_early=True),
}

# RST_STREAM: INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM, and before the head REFUSED_STREAM.
RESETS = {
    "upstream resets with INTERNAL_ERROR": dict(path="/abort/2", read="first"),
    "upstream resets with CANCEL": dict(path="/abort/8", read="first"),
    "upstream resets with ENHANCE_YOUR_CALM": dict(path="/abort/11", read="first"),
    "upstream refuses the stream": dict(path="/refuse/7"),
}

# Each of these in every way that isn't already another case's.
WAYS = [
    ("h2", False, "h1"),
    ("h1", False, "h2c"),
    ("h1", True, "h1"),
    ("h2", True, "h1"),
    ("h1", False, "tls"),
    ("h2", False, "tls"),
    ("h2", True, "tls"),
    ("h1", True, "h2c"),
    ("h2", True, "h2c"),
]
IN_EVERY_WAY = ["echo", "events", "trailers", "103", "trailers up", "echo to and fro", "304"]


def cases():
    for name, what in (NODE | RESETS).items():
        yield Case(name, ask(with_node.http2, **what), "node http2", "node", "h2", False, "h2c")
    yield Case("twenty at once", ask(with_node.streams, path="/echo", method="POST"), "node http2", "node", "h2", False, "h2c", notes=20)
    yield Case("twenty at once", ask(with_node.streams, path="/echo", method="POST"), "node http2", "node", "h2", False, "h1", notes=20)
    for speaks, tls, upstream in WAYS:
        client, using = (with_node.http2, "node http2") if speaks == "h2" else (with_node.http, "node http")
        for name in IN_EVERY_WAY:
            yield Case(name, ask(client, **NODE[name]), using, "node", speaks, tls, upstream)
    ends = ["early response", "client leaves", "client leaves before the head"]
    for name in ("cookie crumbs", "HEAD", "204", "length", "100-continue", *ends):
        yield Case(name, ask(with_node.http2, **NODE[name]), "node http2", "node", "h2", False, "h1")
    for name in ("HEAD", "204", "length", "100-continue", "early response", "client leaves", "parts in pace", "repeated headers"):
        yield Case(name, ask(with_node.http, **NODE[name]), "node http", "node", "h1", False, "h2c")

    yield from hypercorn()
    yield from over_tls()


def hypercorn():
    clients = {"curl": curl, "httpx": httpx}
    for using, client in clients.items():
        for name, what in EVERYWHERE.items():
            yield Case(name, ask(client, **what), using, "hypercorn", "h2", False, "h2c")
    for name in ("HEAD", "304", "repeated headers", "gzip", "422 of pydantic", "range", "down 8 MB", "up 8 MB", "redirect to the own host"):
        using, what = ONCE[name]
        yield Case(name, ask(clients[using], **what), using, "hypercorn", "h2", False, "h2c")
    yield Case("103", ask(curl, path="/live/hints"), "curl", "hypercorn", "h2", False, "h2c")
    trailing = dict(path="/live/trailers", headers=(("te", "trailers"),))
    yield Case("trailers", ask(curl, **trailing), "curl", "hypercorn", "h2", False, "h2c")
    yield Case("twenty in a row", ask(with_httpx.together, path="/echo"), "httpx", "hypercorn", "h2", False, "h2c", notes=20)
    paced = dict(path="/live/events/9?gap=0.04", read="events")
    yield Case("events every 40 ms", ask(httpx, **paced), "httpx", "hypercorn", "h2", False, "h2c", timed=True)
    yield Case("events every 40 ms", ask(httpx, **paced), "httpx", "uvicorn", "h2", False, "h1", timed=True)


def over_tls():
    for name, what in EVERYWHERE.items():
        yield Case(name, ask(curl, **what), "curl", "uvicorn", "h1", True, "h1")
        yield Case(name, ask(curl, **what), "curl", "hypercorn", "h2", True, "tls")
        yield Case(name, ask(httpx, **what), "httpx", "hypercorn", "h1", False, "tls")
        yield Case(name, ask(with_aiohttp, **what), "aiohttp", "hypercorn", "h1", False, "tls")
    yield Case("fetch", ask(with_node.fetch), "fetch", "node", "h1", True, "tls")
    yield Case("events", ask(with_node.fetch, path="/events", read="events"), "fetch", "node", "h1", True, "tls")
    for name in ("trailers only", "client leaves", "cookie crumbs"):
        yield Case(name, ask(with_node.http2, **NODE[name]), "node http2", "node", "h2", True, "tls")
