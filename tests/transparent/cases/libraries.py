"""HTTP with the clients that people use."""

from functools import partial

from cases.case import Case
from clients import with_httpx, with_node
from clients.ask import Ask
from clients.with_aiohttp import with_aiohttp
from clients.with_curl import curl
from clients.with_httpx import with_httpx as httpx
from shapes import LINE, large

JSON = (("content-type", "application/json"),)
CLIENTS = {"curl": curl, "httpx": httpx, "aiohttp": with_aiohttp, "fetch": with_node.fetch, "node http": with_node.http}
PARTS = [b"one", large(0, 100_000), b"three"]


def ask(client, **what):
    return partial(call, client, Ask(**what))


def call(client, what: Ask, run):
    return client(run, what)


EVERYWHERE = {
    "json": {},
    "echo": dict(path="/echo", method="POST", headers=JSON, body=b'{"a": 1}'),
    "events": dict(path="/live/events/5", read="events"),
    "upload in parts": dict(path="/upload", method="POST", body=PARTS),
}

# Each once, with the client named beside it.
ONCE = {
    "HEAD": ("curl", dict(method="HEAD")),
    "HEAD by aiohttp": ("aiohttp", dict(method="HEAD")),
    "PUT": ("httpx", dict(path="/echo", method="PUT", body=b"put")),
    "PATCH": ("aiohttp", dict(path="/echo", method="PATCH", body=b"patch")),
    "DELETE": ("curl", dict(path="/echo", method="DELETE")),
    "OPTIONS": ("httpx", dict(path="/echo", method="OPTIONS")),
    "PROPFIND": ("curl", dict(path="/echo", method="PROPFIND", body=b"<propfind/>")),
    "QUERY": ("node http", dict(path="/echo", method="QUERY", body=b"select")),
    "204": ("fetch", dict(path="/status/204")),
    "304": ("httpx", dict(path="/status/304")),
    "404": ("curl", dict(path="/nowhere")),
    "405": ("curl", dict(path="/json", method="POST", body=b"")),
    "418": ("aiohttp", dict(path="/status/418")),
    "422 of pydantic": ("httpx", dict(path="/items", method="POST", headers=JSON, body=b'{"name": 1}')),
    "500": ("curl", dict(path="/crash")),
    "repeated headers": ("curl", dict(path="/repeated")),
    "repeated headers by fetch": ("fetch", dict(path="/repeated")),
    "repeated headers up": ("aiohttp", dict(path="/echo", headers=(("x-a", "1"), ("x-b", ""), ("x-a", "2")))),
    "redirect": ("curl", dict(path="/redirect")),
    "redirect to the own host": ("curl", dict(path="/json/")),
    "cookies": ("httpx", dict(path="/echo", headers=(("cookie", "a=1; b=2"),))),
    "gzip": ("curl", dict(path="/gzip", headers=(("accept-encoding", "gzip"),))),
    "gzip by fetch": ("fetch", dict(path="/gzip")),
    "brotli": ("httpx", dict(path="/brotli", headers=(("accept-encoding", "br"),))),
    "brotli by fetch": ("fetch", dict(path="/brotli")),
    "file": ("curl", dict(path="/file")),
    "range": ("curl", dict(path="/file", headers=(("range", "bytes=1000-1999"),))),
    "range, not satisfiable": ("httpx", dict(path="/file", headers=(("range", "bytes=9999999-"),))),
    "path with escapes": ("curl", dict(path="/echo/a%2Fb//%C3%A9;p?q=%20+&q=%zz&=")),
    "down 8 MB": ("curl", dict(path="/large/8000000")),
    "down 8 MB by fetch": ("fetch", dict(path="/large/8000000")),
    "up 8 MB": ("httpx", dict(path="/upload", method="POST", body=large(0, 8_000_000))),
    "up 8 MB in parts": ("aiohttp", dict(path="/upload", method="POST", body=[large(n, 80_000) for n in range(100)])),
    "many small events": ("httpx", dict(path="/live/events/60", read="events")),
    "early response": ("curl", dict(path="/live/early", method="POST", body=LINE * 2000)),
    "100-continue": ("curl", dict(path="/upload", method="POST", body=LINE * 30_000, headers=(("expect", "100-continue"),))),
    "client leaves": ("httpx", dict(path="/live/events/5", read="leave")),
    "client leaves by aiohttp": ("aiohttp", dict(path="/live/events/5", read="leave")),
    "client leaves by fetch": ("fetch", dict(path="/live/events/5", read="leave")),
}

ON_NODE = {
    "103": ("node http", dict(path="/hints")),
    "103 by curl": ("curl", dict(path="/hints")),
    "trailers": ("node http", dict(path="/trailers")),
    "trailers by curl": ("curl", dict(path="/trailers")),
    "trailers only": ("node http", dict(path="/trailers/only")),
    "trailers up": ("node http", dict(path="/echo", method="POST", body=PARTS, trailers=(("x-sum", "abc"), ("x-end", "1")))),
    "echo to and fro": ("node http", dict(path="/live/echo", method="POST", body=PARTS, ping_pong=True)),
    "echo to and fro by fetch": ("fetch", dict(path="/echo", method="POST", body=PARTS)),
    "parts in pace": ("node http", dict(path="/upload", method="POST", body=[b"one", b"two", b"three"], paced=True)),
    "parts in pace by httpx": ("httpx", dict(path="/upload", method="POST", body=[b"one", b"two", b"three"], paced=True)),
    "events": ("node http", dict(path="/events", read="events")),
    "large": ("aiohttp", dict(path="/large/3000000")),
    "100-continue": ("node http", dict(path="/echo", method="POST", body=b"wanted", headers=(("expect", "100-continue"),))),
    "early response": ("node http", dict(path="/early", method="POST", body=LINE * 2000)),
    "upstream breaks": ("node http", dict(path="/abort/0", read="first")),
    "upstream breaks before the head": ("fetch", dict(path="/refuse/0")),
    "client leaves before the head": ("fetch", dict(path="/hang", leave_early=True)),
    "client leaves": ("fetch", dict(path="/stream", read="leave")),
    "repeated headers": ("fetch", dict(path="/repeated")),
    "304": ("fetch", dict(path="/304")),
}


def cases():
    for using, client in CLIENTS.items():
        for name, what in EVERYWHERE.items():
            yield Case(name, ask(client, **what), using, "uvicorn")
    for name, (using, what) in ONCE.items():
        yield Case(name, ask(CLIENTS[using], **what), using, "uvicorn")
    paced = dict(path="/live/events/9?gap=0.04", read="events")
    for using in ("curl", "httpx", "fetch"):
        yield Case("events every 40 ms", ask(CLIENTS[using], **paced), using, "uvicorn", timed=True)
    for name in ("json", "events", "upload in parts"):
        yield Case(name, ask(httpx, **EVERYWHERE[name]), "httpx", "uvicorn-h11")
        yield Case(name, ask(curl, **EVERYWHERE[name]), "curl", "hypercorn")
    yield Case("redirect followed", ask(with_httpx.follow, path="/json/"), "httpx", "uvicorn", notes=2)
    yield Case("twenty in a row", ask(with_httpx.together, path="/echo"), "httpx", "uvicorn", notes=20)
    for name, (using, what) in ON_NODE.items():
        yield Case(name, ask(CLIENTS[using], **what), using, "node")
    yield Case("upgrade", ask(with_node.upgrade, path="/upgrade"), "node http", "node")
