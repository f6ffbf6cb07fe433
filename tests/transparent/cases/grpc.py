"""gRPC, without and with TLS on either side."""

import grpc

from cases.case import Case
from clients.with_grpc import both, client_stream, server_stream, unary
from shapes import large

METADATA = (("x-a", "1"), ("x-a", "2"), ("x-bytes-bin", b"\x00\xff"), ("x-text", "a, b"))

# With its own name, what it is.
CALLS = {
    "unary": unary(metadata=METADATA),
    "server streaming": server_stream(),
    "client streaming": client_stream([b"one", large(0, 50_000), b"three"]),
    "both ways, to and fro": both([b"one", large(0, 50_000), b"", b"four"]),
    "an error with trailers": unary("Fails"),
    "an error in the stream": server_stream("FailsMidway"),
}
MORE = {
    "an empty message": unary(message=b""),
    "3 MB": unary(message=large(0, 3_000_000)),
    "gzip": unary(message=b"a" * 50_000, compression=grpc.Compression.Gzip),
    "no messages in the stream": server_stream(message=b"0"),
    "no messages sent": client_stream([]),
    "cancelled by the client": server_stream("UntilLeft", cancel_after=1),
    "deadline": server_stream("UntilLeft", timeout=0.5),
}


def cases():
    for name, call in (CALLS | MORE).items():
        yield Case(name, call, "grpcio", "grpc", "h2", False, "h2c")
    yield Case("an unknown method", unary("Nothing"), "grpcio", "grpc", "h2", False, "h2c", notes=0)
    for name, call in CALLS.items():
        yield Case(name, call, "grpcio", "grpc", "h2", True, "tls")
    for name in ("unary", "both ways, to and fro", "an error with trailers"):
        yield Case(name, CALLS[name], "grpcio", "grpc", "h2", True, "h2c")
        yield Case(name, CALLS[name], "grpcio", "grpc", "h2", False, "tls")
