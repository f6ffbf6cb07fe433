"""The figures: what is done to each proxy, and what is read off it."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

import machine
from subjects import Fault, captured

MB64 = 64 << 20
EVENT_BYTES = 200


@dataclass
class Bench:
    """What a figure needs to run."""

    place: object
    quick: bool

    @property
    def seconds(self):
        return 1.0 if self.quick else 3.0

    def client(self, name, subject, **options):
        """Runs a client to its end and returns what it printed."""
        done = subprocess.run(self.command(name, subject, options), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Fault(f"{done.stderr.strip()}; {subject.state()}")
        return json.loads(done.stdout)

    def command(self, name, subject, options):
        words = [self.place.programs["parts"], name, "--to", f"127.0.0.1:{subject.port}"]
        for key, value in options.items():
            words += ["--" + key.replace("_", "-"), str(value)]
        return words

    def timed(self, name, subject, **options):
        """The same, and the processor time that the proxy took for it."""
        before = subject.cpu()
        result = self.client(name, subject, **options)
        result["cpu"] = subject.cpu() - before
        return result


def micros(run, per):
    """Microseconds of processor time; `direct` has no process."""
    return run["cpu"] / run[per] * 1e6 if run["cpu"] else None


class Figure:
    """A table: who is in it, its columns, and how a row of one round comes about."""

    name = ""
    title = ""
    note = ""
    subjects = ()
    # (key, heading, digits)
    columns = ()
    # The column that the proxies are compared by.
    compared = ""
    # Whether every round starts the proxies anew.
    anew = False
    rounds = None

    def warm(self, bench, subject):
        bench.client("closed", subject, path=subject.path, connections=64, seconds=0.3)

    def measure(self, bench, subject):
        raise NotImplementedError


ALL = ("direct", "relay", "offramp", "nginx", "haproxy", "envoy", "bare hyper")


class Requests(Figure):
    name = "requests"
    title = "Pass-through: CPU per request"
    note = "64 connections, closed loop, 1 KB up, 2 KB down; user and system time of the proxy's processes"
    subjects = ALL
    columns = (("cpu_us", "CPU µs/request", 1), ("rps", "requests/s", 0), ("p99_us", "p99 µs", 0))

    compared = "cpu_us"
    connections = 64

    def measure(self, bench, subject):
        run = bench.timed("closed", subject, path=subject.path, connections=self.connections, seconds=bench.seconds)
        rps = run["requests"] / run["seconds"]
        return {"requests": run["requests"], "cpu_us": micros(run, "requests"), "rps": rps, "p99_us": run["p99_us"]}


class Few(Requests):
    name = "few"
    title = "Pass-through with few connections"
    note = "as above with 4 connections"
    connections = 4


class Captured(Requests):
    name = "captured"
    title = "Captured and durable: CPU per request"
    note = (
        'the same load; offramp keeps each exchange (durability = "sync") before its last byte leaves, with its sink paused or draining'
        " to a file; nginx and envoy copy requests to a second upstream and keep nothing"
    )
    subjects = ("offramp", "offramp captured", "offramp captured, drained", "nginx mirror", "envoy mirror")
    columns = (*Requests.columns, ("kept", "kept %", 1), ("late", "committed late", 0))

    def measure(self, bench, subject):
        keeps = subject.name.startswith("offramp captured")
        before = captured(subject)[0] if keeps else 0
        row = super().measure(bench, subject)
        if keeps:
            episodes, late = captured(subject)
            row |= {"kept": 100 * (episodes - before) / row["requests"], "late": late}
        return row


class Latency(Figure):
    name = "latency"
    title = "Added latency at 2,000 requests/s"
    note = "open loop over 16 connections, 1 KB up, 2 KB down; percentiles minus those of `direct` in the same round"
    subjects = (*ALL, "offramp captured", "nginx mirror", "envoy mirror")
    columns = (("added_p50_us", "added p50 µs", 1), ("added_p99_us", "added p99 µs", 1), ("cpu_us", "CPU µs/request", 1))
    compared = "added_p50_us"

    def warm(self, bench, subject):
        bench.client("open", subject, path=subject.path, connections=16, rate=2000, seconds=0.3)

    def measure(self, bench, subject):
        run = bench.timed("open", subject, path=subject.path, connections=16, rate=2000, seconds=bench.seconds)
        return {"p50_us": run["p50_us"], "p99_us": run["p99_us"], "cpu_us": micros(run, "requests")}


class Paced(Latency):
    name = "paced"
    title = "Server-sent events, paced"
    note = "16 streams, an event of 200 B every 10 ms on each; time from the upstream's write to the client's read, minus `direct`'s"
    subjects = ALL
    columns = (("added_p50_us", "added p50 µs", 1), ("added_p99_us", "added p99 µs", 1), ("cpu_us", "CPU µs/event", 1))

    def warm(self, bench, subject):
        bench.client("events", subject, connections=16, count=20, gap_us=10000)

    def measure(self, bench, subject):
        run = bench.timed("events", subject, connections=16, count=int(bench.seconds * 100), gap_us=10000)
        return {"p50_us": run["p50_us"], "p99_us": run["p99_us"], "cpu_us": micros(run, "events")}


class Events(Figure):
    name = "events"
    title = "Server-sent events, flat out"
    note = "4 streams of 200 B events, each a chunk of its own, as fast as they come; the upstream writes 320 at a time"
    subjects = ALL
    columns = (("eps", "events/s", 0), ("cpu_us", "CPU µs/event", 2), ("per_read", "events per client read", 1))
    compared = "cpu_us"

    def warm(self, bench, subject):
        bench.client("events", subject, connections=4, count=10000, gap_us=0)

    def measure(self, bench, subject):
        run = bench.timed("events", subject, connections=4, count=int(bench.seconds * 100_000), gap_us=0)
        row = {"eps": run["events"] / run["seconds"], "per_read": run["events"] / run["reads"]}
        return row | {"cpu_us": micros(run, "events")}


class Bodies(Figure):
    name = "bodies"
    title = "Bodies of 64 MB"
    note = "4 connections; the proxy's peak memory since its start, and how much that is above what it had before the first body"
    subjects = ALL
    columns = (
        ("down_mb", "down MB/s", 0), ("up_mb", "up MB/s", 0), ("down_cpu", "down CPU ms/GB", 0), ("up_cpu", "up CPU ms/GB", 0),
        ("peak_mb", "peak MB", 1), ("grown_mb", "grown by MB", 1),
    )
    compared = "down_mb"

    def warm(self, bench, subject):
        super().warm(bench, subject)
        subject.extra["before"] = machine.memory(subject.tree(), "VmRSS")

    def measure(self, bench, subject):
        row = {}
        for direction in ("down", "up"):
            run = bench.timed("transfer", subject, connections=4, count=2 if bench.quick else 8, bytes=MB64, direction=direction)
            row[direction + "_mb"] = run["bytes"] / run["seconds"] / 1e6
            row[direction + "_cpu"] = run["cpu"] / run["bytes"] * 1e12 if subject.process else None
        if subject.process:
            peak = machine.memory(subject.tree(), "VmHWM")
            row |= {"peak_mb": peak / 1024, "grown_mb": (peak - subject.extra["before"]) / 1024}
        return row


class Memory(Figure):
    name = "memory"
    title = "Memory, idle"
    note = (
        "resident memory of a fresh process (a page that nginx's processes share counts for each), and what 2,000 kept connections"
        " add, 3 s after one request on each: 64 of them at a time, or all at once"
    )
    subjects = tuple(name for name in ALL if name != "direct")
    columns = (("idle_mb", "idle MB", 1), ("kb", "KB/connection, 64 at a time", 1), ("kb_at_once", "KB/connection, all at once", 1))
    compared = "kb_at_once"
    anew = True

    def warm(self, bench, subject):
        pass

    def measure(self, bench, subject):
        row = {"idle_mb": machine.memory(subject.tree(), "VmRSS") / 1024, "kb": self.kept(bench, subject, 2000, 64)}
        subject.stop()
        subject.start(bench.place)
        return row | {"kb_at_once": self.kept(bench, subject, 2000, 2000)}

    def kept(self, bench, subject, connections, together):
        """KB that each connection adds, once what a request needed is given back and pooled upstream connections had time to age."""
        # Brings in the code, and no more than one connection.
        bench.client("closed", subject, path=subject.path, connections=1, seconds=0.2)
        before = machine.memory(subject.tree(), "VmRSS")
        command = bench.command("idle", subject, {"connections": connections, "together": together})
        pipe = subprocess.PIPE
        holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            if "ready" not in holder.stdout.readline():
                raise Fault(f"{subject.name}: {holder.stderr.read().strip()}")
            time.sleep(3)
            return (machine.memory(subject.tree(), "VmRSS") - before) / connections
        finally:
            holder.stdin.close()
            holder.wait(20)


class Counts(Figure):
    name = "counts"
    title = "System calls"
    note = "counted with strace, so they do not depend on the processor or on who else uses it; 64 connections, and 4 streams flat out"
    subjects = tuple(name for name in ALL if name != "direct") + ("offramp captured",)
    compared = "calls"
    columns = (("calls", "calls/request", 2), ("writes", "writes/request", 2), ("event_writes", "writes/1,000 events", 1))
    rounds = 1

    def measure(self, bench, subject):
        if not shutil.which("strace"):
            raise Fault("strace is not there: apt-get install strace")
        calls, writes, run = self.count(bench, subject, "closed", path=subject.path, connections=64, seconds=1)
        row = {"calls": calls / run["requests"], "writes": writes / run["requests"]}
        if not subject.name.endswith("captured"):
            _, writes, run = self.count(bench, subject, "events", connections=4, count=20000, gap_us=0)
            row["event_writes"] = writes / run["events"] * 1000
        return row

    def count(self, bench, subject, client, **options):
        summary = subject.directory / "calls"
        attach = [word for pid in subject.tree() for word in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", str(summary), *attach], stderr=subprocess.PIPE, text=True)
        try:
            line = tracer.stderr.readline()
            if "attached" not in line:
                raise Fault(f"strace does not attach: {line.strip()}")
            run = bench.client(client, subject, **options)
        finally:
            tracer.terminate()
            tracer.wait(20)
        calls, writes = 0, 0
        for line in summary.read_text().splitlines():
            row = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if row and row[2] != "total":
                calls += int(row[1])
                writes += int(row[1]) if row[2] in ("write", "writev", "sendto", "sendmsg", "splice", "sendfile") else 0
        return calls, writes, run


FIGURES = {figure.name: figure for figure in (Requests(), Few(), Latency(), Events(), Paced(), Bodies(), Memory(), Captured(), Counts())}
