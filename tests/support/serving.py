"""What every server of the tests has in common: a port of its own, one line when it is ready, and an end with its parent."""

import logging
import os
import socket
import sys
import threading

import uvicorn


def ready(port: int) -> None:
    """Says on standard output that connections are answered from now on."""
    print(f"listening on {port}", flush=True)


def end_with_parent(before=lambda: None) -> None:
    """Ends this process at once when standard input closes: its writer is the test, and nothing may outlive it."""

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        before()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def serve(app, port: int = 0) -> None:
    """Serves an ASGI application on 127.0.0.1 until SIGTERM or the end of the parent; port 0 takes a free one."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("httpx", "httpx2", "graphiti_core.driver.falkordb_driver"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    end_with_parent()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))

    class Server(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                ready(listener.getsockname()[1])

    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    Server(config).run(sockets=[listener])
