"""What is measured: each proxy with its configuration, tuned as well as we know, and started by `Subject.start`."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import machine

CPUS = len(os.sched_getaffinity(0))
CAPTURED = "/api/v1/agent/harbour/run"
PASSED = "/pass"


class Fault(Exception):
    """A sentence for the user."""


def free_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class Place:
    """Where everything is: the programs (None: absent), the directory for what they write, and the upstream."""

    programs: dict
    root: Path
    upstream: int = 0


@dataclass
class Subject:
    """One proxy, as a process of its own. Without a command it is the upstream itself: `direct`."""

    name: str
    program: str
    path: str = PASSED
    # (port, directory, place) -> command line; writes its configuration into the directory.
    command: object = None
    # A queue must not carry what one round left into the next.
    fresh: bool = False
    after_start: object = None
    port: int = 0
    process: subprocess.Popen = None
    directory: Path = None
    extra: dict = field(default_factory=dict)

    def start(self, place):
        if self.command is None:
            self.port = place.upstream
            return
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=self.name.replace(" ", "-") + "-", dir=place.root))
        log = open(self.directory / "log", "wb")
        command = self.command(self, self.port, self.directory, place)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True
        )
        log.close()
        self.wait()
        if self.after_start:
            self.after_start(self)

    def wait(self):
        """Until a request has come through."""
        deadline = time.monotonic() + 20
        while True:
            if self.process.poll() is not None:
                raise Fault(self.state())
            try:
                status, _ = get(self.port, PASSED)
                if status == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Fault(f"it does not serve after 20 s; {self.state()}")
            time.sleep(0.02)

    def state(self):
        """What can be said about it when something went wrong."""
        if not self.process:
            return "the upstream was asked directly"
        code = self.process.poll()
        log = (self.directory / "log").read_text(errors="replace")[-600:].strip() or "nothing"
        return f"the process {'runs' if code is None else f'has ended with {code}'} and said: {log}"

    def tree(self):
        if not self.process:
            return []
        if self.process.poll() is not None:
            raise Fault(self.state())
        return machine.tree(self.process.pid)

    def cpu(self):
        return machine.cpu_seconds(self.tree())

    def stop(self):
        if not self.process:
            return
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        shutil.rmtree(self.directory, ignore_errors=True)
        self.process = None


def get(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


# --------------------------------------------------------------------------------------------------------------- offramp
OFFRAMP = """
[[proxy]]
name = "bench"
listen = "127.0.0.1:{port}"
upstream = "http://127.0.0.1:{upstream}"
  [[proxy.route]]
  name = "run"
  method = "POST"
  path = "/api/v1/agent/{{agent}}/run"
  action = "capture"
  preset = "automagik"
[queue]
path = "{directory}/queue"
durability = "sync"
max_bytes = "16GiB"
max_episodes = 5000000
[[sink]]
name = "file"
type = "file"
path = "{directory}/episodes.jsonl"
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn"
"""


def offramp(subject, port, directory, place):
    subject.extra["admin"] = free_port()
    config = directory / "config.toml"
    config.write_text(
        OFFRAMP.format(port=port, upstream=place.upstream, directory=directory, admin=subject.extra["admin"])
    )
    return [place.programs["offramp"], "--config", str(config), "run"]


def pause(subject):
    status, body = get(subject.extra["admin"], "/api/v1/sinks/file/pause", "POST")
    if status >= 300:
        raise Fault(f"offramp does not pause its sink: {status} {body!r}")


def captured(subject):
    """(episodes captured, last bytes that left before their commit) since the start."""
    _, body = get(subject.extra["admin"], "/api/v1/status")
    _, metrics = get(subject.extra["admin"], "/metrics")
    late = [line for line in metrics.decode().splitlines() if line.startswith("offramp_queue_commit_late_total")]
    return json.loads(body)["ledger"]["captured"], int(float(late[0].split()[-1])) if late else 0


# ----------------------------------------------------------------------------------------------------------------- nginx
# Upstream connections are kept, streams are not buffered, large bodies go through buffers of the size that was fastest and never
# through temporary files, and there is no access log.
LARGE = "proxy_max_temp_file_size 0; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;"
NGINX = """
daemon off;
{user}
pid {directory}/pid;
error_log {directory}/error.log error;
worker_processes {cpus};
worker_rlimit_nofile {files};
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 16k;
  upstream agent {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $host;
    location / {{ {mirror} proxy_pass http://agent; }}
    location = /mirror {{ internal; proxy_pass http://agent$request_uri; }}
    location /events {{ proxy_buffering off; proxy_pass http://agent; }}
    location /bytes {{ {large} proxy_pass http://agent; }}
    location /up {{ proxy_request_buffering off; client_body_buffer_size 256k; proxy_pass http://agent; }}
  }}
}}
"""


def nginx(mirror):
    def command(_, port, directory, place):
        text = NGINX.format(
            directory=directory, cpus=CPUS, files=machine.open_files(), upstream=place.upstream, port=port,
            # Started by root, its workers would be somebody else, who may not write into the directory.
            large=LARGE,
            user="user root;" if os.geteuid() == 0 else "",
            mirror="mirror /mirror; mirror_request_body on;" if mirror else "",
        )
        config = directory / "nginx.conf"
        config.write_text(text)
        return [place.programs["nginx"], "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]

    return command


# --------------------------------------------------------------------------------------------------------------- haproxy
# `http-no-delay`: without it single events of a stream wait up to 80 ms.
HAPROXY = """
global
  nbthread {cpus}
  maxconn 8192
defaults
  mode http
  option http-no-delay
  option http-keep-alive
  http-reuse always
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
frontend clients
  bind 127.0.0.1:{port} backlog 1024
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend agent
backend agent
  server agent 127.0.0.1:{upstream} pool-max-conn -1
"""


def haproxy(_, port, directory, place):
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(cpus=CPUS, port=port, upstream=place.upstream))
    return [place.programs["haproxy"], "-db", "-f", str(config)]


# ----------------------------------------------------------------------------------------------------------------- envoy
def all_of(route):
    return {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}


def envoy_config(port, upstream, mirror):
    route = {"cluster": "agent", "timeout": "0s"}
    if mirror:
        route["request_mirror_policies"] = [{"cluster": "mirror"}]

    def cluster(name):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
        limits = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}
        return {
            "name": name, "type": "STATIC", "connect_timeout": "10s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }

    def typed(name, **rest):
        return {"@type": f"type.googleapis.com/envoy.extensions.filters.{name}", **rest}

    router = {"name": "envoy.filters.http.router", "typed_config": typed("http.router.v3.Router", suppress_envoy_headers=True)}
    manager = typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench", generate_request_id=False, use_remote_address=True, stream_idle_timeout="0s",
        http_filters=[router],
        route_config={"virtual_hosts": [all_of(route)]},
    )
    listener = {
        "name": "clients",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    clusters = [cluster("agent")] + ([cluster("mirror")] if mirror else [])
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def envoy(mirror):
    def command(_, port, directory, place):
        config = directory / "envoy.json"
        config.write_text(json.dumps(envoy_config(port, place.upstream, mirror)))
        return [
            place.programs["envoy"], "-c", str(config), "--concurrency", str(CPUS),
            "--log-level", "error", "--disable-hot-restart",
        ]  # fmt: skip

    return command


# ----------------------------------------------------------------------------------------------------------------- parts
def upstream_command(_, port, __, place):
    return [place.programs["parts"], "upstream", "--listen", f"127.0.0.1:{port}"]


def part(name):
    def command(_, port, __, place):
        return [place.programs["parts"], name, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{place.upstream}"]

    return command


def subjects():
    """All of them, by name. `relay` is the floor, `bare` what hyper alone can do."""
    every = [
        Subject("direct", "parts"),
        Subject("relay", "parts", command=part("relay")),
        Subject("offramp", "offramp", command=offramp),
        Subject("nginx", "nginx", command=nginx(mirror=False)),
        Subject("haproxy", "haproxy", command=haproxy),
        Subject("envoy", "envoy", command=envoy(mirror=False)),
        Subject("bare hyper", "parts", command=part("bare")),
        Subject("offramp captured", "offramp", CAPTURED, offramp, fresh=True, after_start=pause),
        Subject("offramp captured, drained", "offramp", CAPTURED, offramp, fresh=True),
        Subject("nginx mirror", "nginx", CAPTURED, nginx(mirror=True)),
        Subject("envoy mirror", "envoy", CAPTURED, envoy(mirror=True)),
    ]
    return {subject.name: subject for subject in every}
