#!/usr/bin/env python3
"""Drains a backlog for real, and shows how near that comes to the ideal.

    python3 benches/drain.py                                  100 workers, 200 lanes, 15,000 writes of 20 ms, three times
    python3 benches/drain.py --workers 20 --episodes 6000     another sink

With W workers, lanes enough and a backend that takes t for each write, N episodes can't be drained in less than N * t / W. It builds
offramp and the parts with --release, imports the backlog while the sink is paused, resumes the sink, and has the backend (`bench-parts
graph`) tell the time from its first write to the end of its last one. `durability = "sync"`. Each round has a queue of its own. CPU time is
that of the process of offramp from the resumption to the last delivery, in all and by its threads.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import machine
from compare import ROOT, build, progress
from subjects import Fault, Place, Subject, free_port, get

CONFIG = """
[[proxy]]
name = "drain"
listen = "127.0.0.1:{port}"
upstream = "http://127.0.0.1:{graph}"
[queue]
path = "{directory}/queue"
durability = "sync"
[[sink]]
name = "graph"
type = "http"
url = "http://127.0.0.1:{graph}"
method = "POST"
path = "/write"
body = '{{"id": {{{{ id | tojson }}}}, "text": {{{{ transcript | tojson }}}}}}'
workers = {workers}
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn"
"""

# A question and an answer: 2 KB.
MESSAGES = [{"role": "user", "content": "question " * 70}, {"role": "assistant", "content": "answer " * 160}]


def backlog(lanes, episodes):
    """JSON Lines as `offramp export` prints them, the lanes in turns."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    request = {"method": "POST", "path": "/api/v1/agent/harbour/run", "status": 200}
    common = {"proxy": "drain", "route": "run", "captured_at": at, "completed_at": at, "end": "complete", "messages": MESSAGES}
    common |= {"request": request, "sha256": {}, "sinks": {"graph": {"state": "pending", "attempts": 0}}}
    lines = [{"id": str(uuid.uuid4()), "session": f"session-{n % lanes}"} | common for n in range(episodes)]
    return "\n".join(map(json.dumps, lines)).encode()


def graph(args):
    def command(subject, port, _, place):
        micros = str(round(args.write_ms * 1000))
        return [place.programs["parts"], "graph", "--listen", f"127.0.0.1:{port}", "--write-us", micros, "--count", str(args.episodes)]

    return Subject("graph", "parts", command=command)


def offramp(args):
    def command(subject, port, directory, place):
        admin = subject.extra["admin"] = free_port()
        config = directory / "config.toml"
        config.write_text(CONFIG.format(port=port, graph=place.upstream, directory=directory, workers=args.workers, admin=admin))
        return [place.programs["offramp"], "--config", str(config), "run"]

    return Subject("offramp", "offramp", command=command)


def post(subject, path, body=b""):
    url = f"http://127.0.0.1:{subject.extra['admin']}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/x-ndjson"}), timeout=600) as answer:
        return answer.read()


def ledger(subject):
    return json.loads(get(subject.extra["admin"], "/api/v1/status")[1])["ledger"]


def threads(pid):
    """CPU seconds of the threads that are there, by the beginning of their names."""
    spent = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            spent[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue  # it has ended
    return spent


def told(backend, drain, patience):
    """The line that the backend prints when it has had all writes."""
    deadline = time.monotonic() + patience
    while True:
        text = (backend.directory / "log").read_text()
        if text.endswith("}\n"):
            return json.loads(text.splitlines()[-1])
        if time.monotonic() > deadline or ledger(drain)["dead"]:
            raise Fault(f"the backlog is not drained: {ledger(drain)}; {drain.state()}")
        time.sleep(0.1)


def measure(args, place, lines):
    """One round."""
    backend, drain = graph(args), offramp(args)
    try:
        backend.start(place)
        place.upstream = backend.port
        drain.start(place)
        post(drain, "/api/v1/sinks/graph/pause")
        progress("importing")
        post(drain, "/api/v1/import", lines)
        if ledger(drain)["pending"] != args.episodes:
            raise Fault(f"the import came to {ledger(drain)}")
        progress("draining")
        cpu, before = drain.cpu(), threads(drain.process.pid)
        post(drain, "/api/v1/sinks/graph/resume")
        said = told(backend, drain, 600)
        while ledger(drain)["pending"]:
            time.sleep(0.01)
        cpu, after = drain.cpu() - cpu, threads(drain.process.pid)
        end = ledger(drain)
        if end["delivered"] != args.episodes or end["gap"]:
            raise Fault(f"{args.episodes:,} episodes, and the ledger says: {end}")
        return said | {"cpu": cpu, "threads": after - before}
    finally:
        progress("")
        drain.stop()
        backend.stop()


def report(args, rounds):
    ideal = args.episodes * args.write_ms / 1000 / args.workers
    print(f"{args.episodes:,} writes of {args.write_ms:g} ms, {args.workers} workers, {args.lanes} lanes: ideal {ideal:.2f} s")
    print("\n| round | seconds | of the ideal | writes/s | a write took (ms) | at once, mean | most | CPU us/write | processors |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for n, r in enumerate(rounds, 1):
        took, writes = r["seconds"], r["writes"]
        cells = [f"{took:.2f}", f"{took / ideal:.3f}", f"{writes / took:,.0f}", f"{r['busy'] / writes * 1e3:.2f}"]
        cells += [f"{r['busy'] / took:.1f}", r["most"], f"{r['cpu'] / writes * 1e6:.0f}", f"{r['cpu'] / took:.2f}"]
        print(f"| {n} | " + " | ".join(map(str, cells)) + " |")
    names = {name for r in rounds for name in r["threads"]}
    each = {name: statistics.median(r["threads"][name] / r["writes"] * 1e6 for r in rounds) for name in names}
    shares = [f"{name} {us:.0f}" for name, us in sorted(each.items(), key=lambda pair: -pair[1]) if us >= 1]
    print(f"\nCPU us/write by thread, median: {', '.join(shares)}")
    print(f"of the ideal, median: {statistics.median(r['seconds'] for r in rounds) / ideal:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--lanes", type=int, help="default: twice the workers")
    parser.add_argument("--episodes", type=int, default=15_000)
    parser.add_argument("--write-ms", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--offramp", metavar="PATH", help="use this binary and do not build offramp")
    args = parser.parse_args()
    args.lanes = args.lanes or 2 * args.workers
    machine.open_files()
    programs = build(args.offramp)
    lines = backlog(args.lanes, args.episodes)
    # On the disk of the repository and not in /tmp, which may be memory: the queue is to be synced.
    with tempfile.TemporaryDirectory(prefix="drain-", dir=ROOT / "target") as root:
        print(f"{machine.describe()}; others use {machine.busy_share():.0%} of it; ", end="")
        print(f"fdatasync of 4 KB: {machine.fdatasync_us(root):.0f} us")
        report(args, [measure(args, Place(programs, Path(root)), lines) for _ in range(args.rounds)])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Fault as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
