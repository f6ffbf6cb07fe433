#!/usr/bin/env python3
"""Lets episodes pass through a backlog for minutes, and shows what that costs in memory and on the disk.

    python3 benches/soak.py                      2,000,000 episodes, about 10 minutes; writes benches/soak.svg
    python3 benches/soak.py --episodes 50000     a short run; writes target/soak.svg

It builds offramp and the parts with --release. Clients send exchanges through offramp, each of them durable before its answer ends, and wait
whenever the backlog is full; a sink of type "replay" drains it meanwhile. Once a second memory, disk and backlog are read. What is delivered
is kept for a second only, so that what is on the disk is the backlog and whatever the queue needs beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import machine
from compare import ROOT, build, progress
from subjects import CAPTURED, Fault, Place, Subject, free_port, get, upstream_command

EPISODES = 2_000_000
BACKLOG = 10_000
# One client's turn; between two of them the backlog is looked at.
TURN = 0.25
# Time for the disk to come down when all is drained.
AFTERWARDS = 15

CONFIG = """
[[proxy]]
name = "soak"
listen = "127.0.0.1:{port}"
upstream = "http://127.0.0.1:{upstream}"
  [[proxy.route]]
  name = "run"
  method = "POST"
  path = "/api/v1/agent/{{agent}}/run"
  preset = "automagik"
[queue]
path = "{directory}/queue"
durability = "sync"
keep_delivered = "1s"
[[sink]]
name = "again"
type = "replay"
url = "http://127.0.0.1:{upstream}"
workers = 64
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn"
"""


def offramp(subject, port, directory, place):
    subject.extra["admin"] = free_port()
    config = directory / "config.toml"
    config.write_text(CONFIG.format(port=port, upstream=place.upstream, directory=directory, admin=subject.extra["admin"]))
    return [place.programs["offramp"], "--config", str(config), "run"]


@dataclass
class Sample:
    """How things stood at a moment."""

    seconds: float
    captured: int
    backlog: int
    memory: float
    disk: float


class Soak:
    """One offramp, its load, and what is read of it."""

    def __init__(self, place):
        self.place = place
        self.offramp = Subject("offramp", "offramp", CAPTURED, offramp)
        self.offramp.start(place)
        self.began = time.monotonic()
        self.samples = []
        self.over = threading.Event()
        self.fault = None

    def ledger(self):
        _, body = get(self.offramp.extra["admin"], "/api/v1/status")
        return json.loads(body)["ledger"]

    def disk(self):
        """MB that the queue's directory takes, as du counts them. Files may go while they are looked at."""
        total = 0
        for path in (self.offramp.directory / "queue").rglob("*"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total / 1e6

    def watch(self):
        """Takes a sample every second until it is over."""
        try:
            while not self.over.wait(1 - (time.monotonic() - self.began) % 1):
                ledger = self.ledger()
                memory = machine.memory([self.offramp.process.pid], "VmRSS") / 1e3
                seconds = time.monotonic() - self.began
                self.samples.append(Sample(seconds, ledger["captured"], ledger["pending"], memory, self.disk()))
        except (Fault, OSError) as fault:
            self.fault = fault

    def send(self, seconds):
        """Exchanges over 64 connections, one after the other on each. Any failed one is a fault."""
        command = [self.place.programs["parts"], "closed", "--to", f"127.0.0.1:{self.offramp.port}", "--path", CAPTURED]
        command += ["--connections", "64", "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Fault(f"{done.stderr.strip()}; {self.offramp.state()}")
        return json.loads(done.stdout)["requests"]

    def run(self, episodes):
        """Until so many are captured and all of them delivered: how many exchanges there were, and seconds until the last delivery."""
        sent = 0
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        try:
            while sent < episodes:
                if self.fault:
                    raise self.fault
                backlog = self.ledger()["pending"]
                progress(f"{sent:,} of {episodes:,} sent, backlog {backlog:,}")
                if backlog < BACKLOG:
                    sent += self.send(TURN)
                else:
                    time.sleep(0.02)
            while self.ledger()["pending"]:
                time.sleep(0.02)
            took = time.monotonic() - self.began
            progress("drained; what does the disk do?")
            time.sleep(AFTERWARDS)
        finally:
            self.over.set()
            watcher.join()
            progress("")
        return sent, took


def report(soak, sent, took):
    """What was measured, as a table for the README, and what is wrong with it."""
    ledger = soak.ledger()
    loaded = [s for s in soak.samples if s.seconds <= took]
    quarter = max(1, len(loaded) // 4)

    def row(name, unit, digits, value):
        values = [value(s) for s in loaded]
        cells = [statistics.median(values[:quarter]), statistics.median(values[-quarter:]), max(values), value(soak.samples[-1])]
        return f"| {name} ({unit}) | " + " | ".join(f"{cell:,.{digits}f}" for cell in cells) + " |"

    print(f"{ledger['delivered']:,} episodes in {took:,.0f} s, {ledger['delivered'] / took:,.0f}/s\n")
    print(f"| | first quarter, median | last quarter, median | most | {AFTERWARDS} s after the last delivery |")
    print("|---|--:|--:|--:|--:|")
    print(row("memory", "MB", 0, lambda s: s.memory))
    print(row("queue's directory", "MB", 0, lambda s: s.disk))
    print(row("backlog", "episodes", 0, lambda s: s.backlog))
    wrong = {key: ledger[key] for key in ("dead", "purged", "expired", "pending", "gap") if ledger[key]}
    if wrong or ledger["captured"] != sent or ledger["delivered"] != sent:
        raise Fault(f"{sent:,} exchanges, and the ledger says: {ledger}")


# ------------------------------------------------------------------------------------------------------------------- picture
WIDTH, PANEL, LEFT, TOP, GAP = 760, 130, 70, 34, 44
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #57606a }
  .title { font-weight: 600; fill: #24292f }
  .grid { stroke: #8c959f; stroke-opacity: .3 }
  .line { fill: none; stroke: #0969da; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .line { stroke: #4493f8 }
  }
"""


def ticks(most, count=4):
    """Round numbers from 0 to a little more than `most`."""
    step = 10 ** len(str(int(most / count)))
    for divisor in (50, 20, 10, 5, 4, 2, 1):
        if step / divisor * count >= most:
            step /= divisor
            break
    return [step * n for n in range(int(most / step) + 2)]


def panel(number, title, samples, value):
    """One curve over time."""
    top = TOP + number * (PANEL + GAP)
    across, up = ticks(samples[-1].seconds, 8), ticks(max(value(s) for s in samples))

    def x(seconds):
        return LEFT + seconds / across[-1] * (WIDTH - LEFT - 20)

    def y(amount):
        return top + PANEL - amount / up[-1] * PANEL

    lines = [f'<text class="title" x="{LEFT}" y="{top - 10}">{title}</text>']
    for tick in up:
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
    for tick in across:
        lines.append(f'<text x="{x(tick):.1f}" y="{top + PANEL + 16}" text-anchor="middle">{tick:,.0f}{" s" if tick == across[-1] else ""}</text>')
    points = " ".join(f"{x(s.seconds):.1f},{y(value(s)):.1f}" for s in samples)
    lines.append(f'<polyline class="line" points="{points}"/>')
    return lines


def picture(samples, sent):
    panels = [
        ("Backlog (episodes)", lambda s: s.backlog),
        ("Memory of the process (MB)", lambda s: s.memory),
        ("The queue's directory (MB)", lambda s: s.disk),
    ]
    height = TOP + len(panels) * (PANEL + GAP)
    label = f"{sent:,} episodes through a backlog of {BACKLOG:,}: backlog, memory and disk over time"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-label="{label}">']
    lines.append(f"<style>{STYLE}</style>")
    for number, (title, value) in enumerate(panels):
        lines += panel(number, title, samples, value)
    return "\n".join([*lines, "</svg>", ""])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=EPISODES, help=f"how many (default {EPISODES:,})")
    parser.add_argument("--offramp", metavar="PATH", help="use this binary and do not build offramp")
    parser.add_argument("--svg", metavar="FILE", help="where the picture goes")
    return parser.parse_args()


def main():
    args = arguments()
    machine.open_files()
    programs = build(args.offramp)
    svg = Path(args.svg) if args.svg else ROOT / ("benches" if args.episodes == EPISODES else "target") / "soak.svg"
    # On the disk of the repository and not in /tmp, which may be memory: the queue is to be synced.
    with tempfile.TemporaryDirectory(prefix="soak-", dir=ROOT / "target") as root:
        place = Place(programs, Path(root))
        upstream = Subject("upstream", "parts", command=upstream_command)
        soak = None
        try:
            upstream.start(place)
            place.upstream = upstream.port
            soak = Soak(place)
            print(f"{machine.describe()}; others used {machine.busy_share():.0%} of it")
            sent, took = soak.run(args.episodes)
            svg.write_text(picture(soak.samples, sent))
            report(soak, sent, took)
            print(f"\n{svg}")
        finally:
            if soak:
                soak.offramp.stop()
            upstream.stop()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Fault as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
