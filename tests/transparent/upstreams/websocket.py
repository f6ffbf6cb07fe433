"""A WebSocket service of the `websockets` library."""

import asyncio

from websockets.asyncio.server import serve as serve_websocket

from shapes import digest


async def converse(board, connection) -> None:
    request = connection.request
    run = request.headers.get("x-run", "")
    whole, left = b"", False
    try:
        async for message in connection:
            whole += message.encode() if isinstance(message, str) else message
            if message == "close, please":
                await connection.close(4321, "as asked")
            elif message == "ping, please":
                await asyncio.wait_for(await connection.ping(b"are you there"), 4)
                await connection.send("you are")
            elif message == "in parts, please":
                await connection.send(iter(["in ", "three ", "parts"]))
            elif message == "break, please":
                connection.transport.abort()
            else:
                await connection.send(message)
    except Exception as error:  # whatever it is, its name is what is compared
        left = type(error).__name__
    seen = {
        "target": request.path,
        "headers": [(name.lower(), value) for name, value in request.headers.raw_items()],
        "body": digest(whole),
        "left": left,
        "code": connection.close_code,
        "reason": connection.close_reason,
    }
    await board.note(run, seen)


def choose(_, offered) -> str | None:
    """The first that this side knows, in its own order; none is fine."""
    return next((known for known in ("second", "first") if known in offered), None)


def refuse(connection, request):
    if request.path == "/forbidden":
        return connection.respond(403, "not for you\n")


async def serve(board):
    """The running server, and its addresses."""
    server = await serve_websocket(
        lambda connection: converse(board, connection),
        "127.0.0.1",
        0,
        process_request=refuse,
        select_subprotocol=choose,
        max_size=16 << 20,
    )
    return server, {"h1": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}
