"""gRPC calls, with messages of bytes."""

import queue
import time

import grpc

from clients.ask import Run
from shapes import digest

LIMIT = 15


def _channel(run: Run):
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_http_proxy", 0)]
    if run.target.tls:
        with open(run.target.ca, "rb") as file:
            return grpc.secure_channel(run.target.authority, grpc.ssl_channel_credentials(file.read()), options)
    return grpc.insecure_channel(run.target.authority, options)


def _pairs(metadata) -> list[tuple[str, str]]:
    return [(key, value if isinstance(value, str) else value.hex()) for key, value in metadata or ()]


def _end(call, error: grpc.RpcError | None) -> dict:
    return {
        "code": call.code().name,
        # Who notices a deadline first, the library or the timer of the call, says it in other words.
        "details": None if call.code() == grpc.StatusCode.DEADLINE_EXCEEDED else call.details(),
        "initial": _pairs(call.initial_metadata()),
        "trailing": _pairs(call.trailing_metadata()),
        "error": type(error).__name__ if error else None,
    }


def unary(method="Unary", message=b"hello", timeout=LIMIT, compression=None, metadata=()):
    def client(run: Run) -> dict:
        with _channel(run) as channel:
            ask = channel.unary_unary(f"/test.Sample/{method}")
            try:
                answer, call = ask.with_call(message, timeout, metadata=(run.marker, *metadata), compression=compression)
            except grpc.RpcError as error:
                return _end(error, error)
            return {"answer": digest(answer)} | _end(call, None)

    return client


def server_stream(method="ServerStream", message=b"5", timeout=LIMIT, cancel_after=None):
    """Reads messages, tells each to the upstream."""

    def client(run: Run) -> dict:
        with _channel(run) as channel:
            call = channel.unary_stream(f"/test.Sample/{method}")(message, timeout, metadata=(run.marker,))
            heard, failed, last = [], None, None
            try:
                for answer in call:
                    now = time.perf_counter()
                    if last is not None:
                        run.gaps.append((now - last) * 1000)
                    heard.append(digest(answer))
                    run.side.mark(len(heard))
                    last = now
                    if len(heard) == cancel_after:
                        call.cancel()
            except grpc.RpcError as error:
                failed = error
            return {"heard": heard} | _end(call, failed)

    return client


def client_stream(messages):
    """Sends each message when the upstream has the one before it."""

    def client(run: Run) -> dict:
        def paced():
            for number, message in enumerate(messages, 1):
                yield message
                run.side.wait(number)

        with _channel(run) as channel:
            ask = channel.stream_unary("/test.Sample/ClientStream")
            try:
                answer, call = ask.with_call(paced(), LIMIT, metadata=(run.marker,))
            except grpc.RpcError as error:
                return _end(error, error)
            return {"answer": answer.decode("latin-1")} | _end(call, None)

    return client


def both(messages):
    """Sends each message when the answer to the one before it has come."""

    def client(run: Run) -> dict:
        turns = queue.SimpleQueue()
        turns.put(None)

        def sent():
            for message in messages:
                turns.get(timeout=LIMIT)
                yield message

        with _channel(run) as channel:
            call = channel.stream_stream("/test.Sample/Both")(sent(), LIMIT, metadata=(run.marker,))
            heard, failed = [], None
            try:
                for answer in call:
                    heard.append(digest(answer))
                    turns.put(None)
            except grpc.RpcError as error:
                failed = error
            return {"heard": heard} | _end(call, failed)

    return client
