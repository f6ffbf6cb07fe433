"""An upstream that answers each request with the golden exchange that its `x-golden` header names, a line at a time.

Takes the directory of the golden exchanges, prints `listening on PORT`, and serves until its standard input ends.
"""

import json
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

golden = pathlib.Path(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        """LangGraph's client asks whether a run whose stream ended is over."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "20")
        self.end_headers()
        self.wfile.write(b'{"status":"success"}')

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        case = json.loads((golden / (self.headers["x-golden"] + ".json")).read_text())
        response = case["exchanges"][0]["response"]
        body = response["body"]
        is_document = isinstance(body, dict)
        self.send_response(response["status"])
        for name, value in response["headers"].items():
            if name != "transfer-encoding":
                self.send_header(name, value)
        if is_document:
            whole = json.dumps(body).encode()
            self.send_header("content-length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for line in body:
            line = line.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"listening on {server.server_port}", flush=True)
sys.stdin.read()
