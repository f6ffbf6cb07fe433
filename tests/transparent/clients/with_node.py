"""Node's clients: one process of `node.mjs` that is asked line by line."""

import base64
import json
import subprocess
from pathlib import Path

from clients.ask import Ask, Run


class Node:
    def __init__(self, program: str, ca: str):
        # Its own fetch has no other way to be told of an authority.
        self._process = subprocess.Popen(
            [program, Path(__file__).parent / "node.mjs", ca],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"NODE_EXTRA_CA_CERTS": ca},
        )

    def ask(self, what: dict) -> dict:
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the Node client ended")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _with(kind: str):
    def client(run: Run, ask: Ask) -> dict:
        bodies = [ask.body] if isinstance(ask.body, bytes) else ask.body
        what = {
            "kind": kind,
            "base": run.target.base,
            "path": ask.path,
            "method": ask.method,
            "headers": [*ask.headers, run.marker],
            "body": bodies and [base64.b64encode(part).decode() for part in bodies],
            "whole": isinstance(ask.body, bytes),
            "paced": ask.paced,
            "ping_pong": ask.ping_pong,
            "trailers": ask.trailers,
            "read": ask.read,
            "patience": ask.patience,
            "leave_early": ask.leave_early,
            "run": run.side.run,
            "board": run.side.address,
        }
        told = run.node.ask(what)
        run.gaps.extend(told.pop("gaps", []))
        return told

    client.__name__ = kind
    return client


fetch = _with("fetch")
http = _with("http")
http2 = _with("http2")
# Twenty streams at once on one connection.
streams = _with("streams")
# An upgrade, and bytes both ways.
upgrade = _with("upgrade")
