"""The FastAPI service behind uvicorn and hypercorn, wrapped in what notes each request as the server handed it over.

What is under `/live/` is never read ahead of the handler; there what is sent waits for the client's marks.
"""

import asyncio
import gzip
import hashlib
import os
import tempfile

import brotli
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel

from shapes import LINE, digest, large

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float


@app.api_route("/json", methods=["GET", "HEAD"])
async def as_json():
    return {"text": "naïve – 日本", "number": 1.5, "list": [1, 2, 3]}


@app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
async def echo(request: Request):
    content_type = request.headers.get("content-type", "application/octet-stream")
    return Response(await request.body(), headers={"x-method": request.method, "content-type": content_type})


@app.get("/echo/{rest:path}")
async def echo_path(rest: str, request: Request):
    return {"rest": rest, "query": request.url.query}


@app.post("/items")
async def items(item: Item):
    return item


@app.get("/crash")
async def crash():
    raise RuntimeError("as asked for")


@app.get("/status/{code}")
async def status(code: int):
    return Response(status_code=code, headers={"etag": '"1"'} if code == 304 else None)


@app.get("/repeated")
async def repeated():
    response = Response("repeated", media_type="text/plain")
    for name, value in [("set-cookie", "a=1; Path=/"), ("x-many", "1"), ("set-cookie", "b=2, c"), ("x-many", "2"), ("x-many", "")]:
        response.headers.append(name, value)
    return response


@app.get("/redirect")
async def redirect():
    return RedirectResponse("/json", status_code=307)


@app.get("/gzip")
async def gzipped():
    body = gzip.compress(LINE * 500, mtime=0)
    return Response(body, headers={"content-encoding": "gzip", "vary": "accept-encoding"}, media_type="text/plain")


@app.get("/brotli")
async def brotlied():
    return Response(brotli.compress(LINE * 500), headers={"content-encoding": "br"}, media_type="text/plain")


@app.get("/large/{size}")
async def large_body(size: int):
    async def parts():
        for at in range(0, size, 1 << 16):
            yield large(at, min(1 << 16, size - at))

    return StreamingResponse(parts(), media_type="application/octet-stream")


FILE = os.path.join(tempfile.mkdtemp(), "file.bin")


@app.get("/file")
async def file():
    if not os.path.exists(FILE):
        with open(FILE, "wb") as out:
            out.write(large(0, 300_000))
    return FileResponse(FILE)


@app.post("/upload")
async def upload(request: Request):
    size, sha = 0, hashlib.sha256()
    async for part in request.stream():
        size += len(part)
        sha.update(part)
    return {"size": size, "sha256": sha.hexdigest()}


@app.post("/live/early")
async def early():
    return Response("too much", status_code=413)


@app.post("/live/echo")
async def live_echo(request: Request):
    return StreamingResponse((part async for part in request.stream() if part), media_type="text/plain")


@app.get("/live/events/{count}")
async def events(count: int, request: Request, gap: float = 0):
    """Each event goes when the client has the one before it, or after a gap."""
    board, run = app.state.board, request.headers["x-run"]

    async def parts():
        for number in range(1, count + 1):
            yield f"id: {number}\ndata: event {number}\n\n"
            if gap:
                await asyncio.sleep(gap)
            elif not await board.wait(run, number):
                yield "data: nobody has the last event\n\n"
                return

    return StreamingResponse(parts(), media_type="text/event-stream")


async def hints(send):
    await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload", b"</app.js>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hints"})


async def trailers(send):
    head = [(b"trailer", b"x-sum"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": head, "trailers": True})
    await send({"type": "http.response.body", "body": b"with trailers", "more_body": False})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"abc"), (b"x-end", b"1")]})


def serve(board):
    """The application, with its notes on this board."""
    app.state.board = board

    async def noting(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        run = dict(headers).get("x-run", "")
        body, left = bytearray(), False

        async def keep():
            nonlocal left
            message = await receive()
            body.extend(message.get("body", b""))
            left = left or message["type"] == "http.disconnect"
            return message

        handed = []
        if "/live/" not in scope["path"]:
            handed.append(await keep())
            while handed[-1].get("more_body"):
                handed.append(await keep())

        async def hand():
            return handed.pop(0) if handed else await keep()

        over = False

        async def give(message):
            nonlocal over
            over = over or (message["type"] == "http.response.body" and not message.get("more_body"))
            await send(message)

        try:
            if scope["path"] == "/live/hints":
                await hints(give)
            elif scope["path"] == "/live/trailers":
                await trailers(give)
            else:
                await app(scope, hand, give)
        finally:
            target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            await board.note(
                run,
                {
                    "method": scope["method"],
                    "target": target.decode("latin-1"),
                    "headers": headers,
                    "body": digest(bytes(body)),
                    "left": left and not over,
                },
            )

    return noting
