"""What the makers of golden exchanges share: a relay that records what a client and a server say to each other, and the files."""

import http.client
import json
import pathlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ROOT = pathlib.Path(__file__).parent.parent

# Of what a client or a server sends, only what a record could want: the rest differs from run to run, or holds credentials.
KEPT = {
    "content-type", "accept", "a2a-version", "location", "content-location", "x-openwebui-chat-id", "x-openwebui-user-id",
    "x-session-id", "traceparent", "x-vercel-ai-ui-message-stream", "transfer-encoding",
}


class Relay:
    """Listens on a port, forwards to a server (or answers from `canned`), and remembers the exchanges."""

    def __init__(self, upstream=None):
        self.upstream = upstream
        self.canned = None
        self.exchanges = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def serve(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                status, headers, answer = relay.answer(self.command, self.path, self.headers, body)
                relay.exchanges.append({
                    "request": {"method": self.command, "target": self.path, "headers": kept(self.headers.items()), "body": body.decode()},
                    "response": {"status": status, "headers": kept(headers), "body": answer.decode()},
                })
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(answer)
                self.close_connection = True

            do_GET = do_POST = do_DELETE = do_PATCH = serve

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, target, headers, body):
        if self.canned is not None:
            return self.canned
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        sent = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection", "accept-encoding")}
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()

    def replies(self, body, content_type="application/json", status=200, headers=()):
        """What the next requests get."""
        if not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        body = body if isinstance(body, bytes) else body.encode()
        self.canned = (status, [("content-type", content_type), *headers], body)

    def last(self, path=None):
        """The last exchange, or the last of a path."""
        found = [e for e in self.exchanges if path is None or urlsplit(e["request"]["target"]).path == path]
        return found[-1]


def kept(headers):
    return {name.lower(): value for name, value in headers if name.lower() in KEPT}


def lines(text):
    """A text as the lines that it has, each with its end: readable, and exact."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def tidy(text):
    """A body as it stands in the file: a JSON document where nothing is lost by it, else its lines."""
    if text == "":
        return None
    try:
        document = json.loads(text)
    except ValueError:
        return lines(text)
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    loose = json.dumps(document, ensure_ascii=False)
    return document if isinstance(document, dict) and text in (compact, loose, json.dumps(document)) else lines(text)


class Stable:
    """Gives ids and times that differ from run to run names that don't, the same everywhere in one case."""

    PATTERN = re.compile(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b"
        r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?|127\.0\.0\.1:\d+"
    )

    def __init__(self):
        self.names = {}

    def __call__(self, text):
        def name(match):
            found = match.group(0)
            if found.startswith("127."):
                return "agent.example"
            if "T" in found and found.count(":") >= 2:
                return "2026-01-01T00:00:00" + ("Z" if found.endswith("Z") else "+00:00" if found.endswith("+00:00") else "")
            return self.names.setdefault(found, f"00000000-0000-4000-8000-{len(self.names) + 1:012x}")

        return self.PATTERN.sub(name, text)


def exchange(recorded, path, episode, stable=None, preset=None, ending=None):
    """One exchange of a case. `episode` may be a function of `stable`, where its ids are known only then."""
    stable = stable or Stable()
    request, response = recorded["request"], recorded["response"]
    made = {"path": path}
    if preset:
        made["preset"] = preset
    made["request"] = {
        "method": request["method"],
        "target": stable(request["target"]),
        "headers": {k: stable(v) for k, v in request["headers"].items()},
        "body": tidy(stable(request["body"])),
    }
    made["response"] = {
        "status": response["status"],
        "headers": {k: stable(v) for k, v in response["headers"].items()},
        "body": tidy(stable(response["body"])),
    }
    if ending:
        made["ending"] = ending
    made["episode"] = json.loads(stable(json.dumps(episode)))
    return made


def said(*messages, session=None, user=None, agent=None, end="complete", **metadata):
    """An episode. Messages are (role, content) pairs; a session of None is the episode's own id."""
    return {
        "session": session,
        "user": user,
        "agent": agent,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "metadata": metadata,
        "end": end,
    }


def talk(asked, answered, /, **rest):
    """An episode of a question and its answer; either may be missing."""
    messages = [("user", asked)] if asked is not None else []
    if answered is not None:
        messages.append(("assistant", answered))
    return said(*messages, **rest)


def write(preset, name, about, origin, *exchanges):
    directory = ROOT / preset
    directory.mkdir(exist_ok=True)
    case = {"about": about, "from": origin, "exchanges": list(exchanges)}
    (directory / f"{name}.json").write_text(json.dumps(case, indent=2, ensure_ascii=False) + "\n")


def sse(*events, name=True, end="\n", done=None):
    """Events as the stream that a server makes of them; of each that has a `type`, the type is its name where `name` says so."""
    text = ""
    for event in events:
        if isinstance(event, str):
            text += event.replace("\n", end)
            continue
        if name and "type" in event:
            text += f"event: {event['type']}{end}"
        text += f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}{end}{end}"
    if done:
        text += f"data: {done}{end}{end}"
    return text
