"""A gRPC service without generated code: messages are bytes, and what the methods do is in their names."""

import grpc

from shapes import digest

# Added on the way by gRPC itself, and different from one connection to the next.
OWN = ("user-agent", "x-run")


def run_of(context) -> str:
    return dict(context.invocation_metadata()).get("x-run", "")


class Service:
    def __init__(self, board):
        self.board = board

    async def note(self, context, method: str, body: bytes) -> None:
        metadata = [(key, value if isinstance(value, str) else value.hex()) for key, value in context.invocation_metadata()]
        seen = {
            "method": method,
            "headers": [pair for pair in metadata if pair[0] not in OWN],
            "body": digest(body),
            "deadline": context.time_remaining() is not None,
        }
        await self.board.note(run_of(context), seen)

    async def unary(self, message: bytes, context) -> bytes:
        await context.send_initial_metadata((("x-initial", "1"), ("x-initial", "2"), ("x-raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "1"), ("x-trailing-bin", b"\xff\x00")))
        await self.note(context, "unary", message)
        return message[::-1]

    async def fails(self, message: bytes, context) -> bytes:
        await self.note(context, "fails", message)
        context.set_trailing_metadata((("x-why", "asked for"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "naïve – 100 % sure")

    async def server_stream(self, message: bytes, context):
        await self.note(context, "server_stream", message)
        for number in range(1, int(message) + 1):
            yield b"event %d" % number
            if not await self.board.wait(run_of(context), number):
                await context.abort(grpc.StatusCode.ABORTED, "nobody has the last event")
        context.set_trailing_metadata((("x-count", message.decode()),))

    async def fails_midway(self, message: bytes, context):
        yield b"half"
        await self.board.wait(run_of(context), 1)
        await self.note(context, "fails_midway", message)
        await context.abort(grpc.StatusCode.DATA_LOSS, "the other half is gone")

    async def client_stream(self, messages, context) -> bytes:
        whole, number = b"", 0
        async for message in messages:
            whole, number = whole + message, number + 1
            await self.board.mark(f"{run_of(context)}/up", number)
        await self.note(context, "client_stream", whole)
        return digest(whole).encode("latin-1")

    async def both(self, messages, context):
        whole = b""
        async for message in messages:
            whole += message
            yield message[::-1]
        await self.note(context, "both", whole)

    async def until_left(self, message: bytes, context):
        """Streams until the client cancels, or its deadline does."""
        yield b"half"
        try:
            await self.board.wait(run_of(context), 99, limit=10)
        finally:
            await self.note(context, "until_left", message)


def handler(service: Service):
    kinds = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Fails": grpc.unary_unary_rpc_method_handler(service.fails),
        "ServerStream": grpc.unary_stream_rpc_method_handler(service.server_stream),
        "FailsMidway": grpc.unary_stream_rpc_method_handler(service.fails_midway),
        "ClientStream": grpc.stream_unary_rpc_method_handler(service.client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(service.both),
        "UntilLeft": grpc.unary_stream_rpc_method_handler(service.until_left),
    }
    return grpc.method_handlers_generic_handler("test.Sample", kinds)


async def serve(board, cert: bytes, key: bytes):
    """The running server, and its addresses."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers((handler(Service(board)),))
    plain = server.add_insecure_port("127.0.0.1:0")
    secure = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    await server.start()
    return server, {"h2c": f"127.0.0.1:{plain}", "tls": f"127.0.0.1:{secure}"}
