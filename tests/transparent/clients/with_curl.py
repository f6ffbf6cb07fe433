"""curl, as its library."""

import pycurl

from clients.ask import Arrivals, Ask, Run, parts

VERSIONS = {
    ("h1", False): pycurl.CURL_HTTP_VERSION_1_1,
    ("h1", True): pycurl.CURL_HTTP_VERSION_1_1,
    ("h2", False): pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
    ("h2", True): pycurl.CURL_HTTP_VERSION_2TLS,
}


class Head:
    """Every line of every head: of 1xx, of the response, and behind the body of the trailers."""

    def __init__(self, run: Run):
        self.run = run
        self.heads = []
        self.complete = False
        self.trailers = []

    def line(self, line: bytes) -> None:
        text = line.decode("latin-1").rstrip("\r\n")
        if text.startswith("HTTP/"):
            version, status, reason = (text.split(" ", 2) + ["", ""])[:3]
            self.heads.append({"version": version, "status": int(status), "reason": reason, "headers": []})
            self.complete = False
        elif not text:
            self.complete = True
            if self.heads and self.heads[-1]["status"] < 200:
                self.run.side.mark(len(self.heads))
        else:
            name, value = text.split(":", 1)
            pair = (name.lower(), value.strip())
            (self.trailers if self.complete else self.heads[-1]["headers"]).append(pair)

    def told(self) -> dict:
        final = self.heads[-1] if self.heads and self.heads[-1]["status"] >= 200 else {}
        informational = [(head["status"], head["headers"]) for head in self.heads if head["status"] < 200]
        return final | {"informational": informational, "trailers": self.trailers}


def curl(run: Run, ask: Ask) -> dict:
    head, arrivals = Head(run), Arrivals(run, ask)

    def write(part: bytes):
        arrivals.came(part)
        return -1 if ask.read == "leave" else None

    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, (run.target.base + ask.path).encode("latin-1"))
    handle.setopt(pycurl.PATH_AS_IS, True)
    handle.setopt(pycurl.HTTP_VERSION, VERSIONS[run.target.speaks, run.target.tls])
    handle.setopt(pycurl.CAINFO, run.target.ca)
    handle.setopt(pycurl.NOPROXY, "*")
    handle.setopt(pycurl.TIMEOUT, 20)
    handle.setopt(pycurl.HEADERFUNCTION, head.line)
    handle.setopt(pycurl.WRITEFUNCTION, write)
    headers = [*ask.headers, run.marker]
    if ask.method == "HEAD":
        handle.setopt(pycurl.NOBODY, True)
    if isinstance(ask.body, bytes):
        handle.setopt(pycurl.POSTFIELDS, ask.body)
    elif ask.body is not None:
        source = parts(ask, run)
        left = b""

        def read(size: int) -> bytes:
            nonlocal left
            left = left or next(source, b"")
            part, left = left[:size], left[size:]
            return part

        handle.setopt(pycurl.UPLOAD, True)
        handle.setopt(pycurl.READFUNCTION, read)
        headers.append(("transfer-encoding", "chunked"))
    handle.setopt(pycurl.CUSTOMREQUEST, ask.method)
    handle.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" if value else f"{name};" for name, value in headers])
    error = None
    try:
        handle.perform()
    except pycurl.error as raised:
        error = f"curl {raised.args[0]}"
    version = {pycurl.CURL_HTTP_VERSION_2_0: "2", pycurl.CURL_HTTP_VERSION_1_1: "1.1"}
    told = head.told() | arrivals.told() | {"error": error}
    told["version"] = version.get(handle.getinfo(pycurl.INFO_HTTP_VERSION), "other")
    handle.close()
    return told
