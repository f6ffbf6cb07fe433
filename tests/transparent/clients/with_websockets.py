"""WebSocket conversations, with the `websockets` library."""

import ssl

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from clients.ask import Run
from shapes import digest


def _connect(run: Run, path: str, **options):
    if run.target.tls:
        options["ssl"] = ssl.create_default_context(cafile=run.target.ca)
    url = f"ws{'s' if run.target.tls else ''}://{run.target.authority}{path}"
    return connect(url, additional_headers=[run.marker], proxy=None, open_timeout=10, max_size=16 << 20, **options)


def converse(*words, path="/", leave=False, **options):
    """Says each word when the answer to the one before it has come, and closes."""

    def client(run: Run) -> dict:
        told = {"heard": [], "error": None}
        try:
            connection = _connect(run, path, **options)
        except InvalidStatus as error:
            response = error.response
            return {"status": response.status_code, "headers": _raw(response), "body": digest(response.body or b"")}
        told |= {"status": connection.response.status_code, "headers": _raw(connection.response), "protocol": connection.subprotocol}
        try:
            for word in words:
                connection.send(word)
                heard = connection.recv(timeout=10)
                told["heard"].append(heard if isinstance(heard, str) else digest(heard))
            if leave:
                connection.socket.close()
            else:
                connection.close(1000, "done")
        except (ConnectionClosed, TimeoutError) as error:
            told["error"] = type(error).__name__
        told |= {"code": connection.close_code, "reason": connection.close_reason}
        return told

    return client


def _raw(response) -> list[tuple[str, str]]:
    # The answer to the key, which is another one each time.
    return [(name.lower(), value) for name, value in response.headers.raw_items() if name.lower() != "sec-websocket-accept"]
