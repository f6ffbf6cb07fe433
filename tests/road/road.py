"""The whole road, on real parts: OpenAI's SDK ─► offramp ─► an agent (FastAPI, OpenAI's SDK) ─► a model;
offramp ─► Graphiti (graphiti-core) ─► FalkorDB.

Many sessions talk to the agent at the same time, every second exchange streamed. Meanwhile offramp is killed twice with SIGKILL and
Graphiti once, each to be started again. In the end every exchange that was answered must be an Episodic node: once, in the order of its
session, at the time at which offramp saw it. An exchange that a kill cut off has no answer, and is asked again in other words; it may be
there, too, and not twice.

Prints what it found, and ends with 0 if that is all as it should be.
"""

import argparse
import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import httpx
from openai import AsyncOpenAI, OpenAIError

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "support"

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--offramp", default=HERE.parent.parent / "target/release/offramp", help="the binary")
arguments.add_argument("--exchanges", type=int, default=200, help="of all sessions together")
arguments.add_argument("--sessions", type=int, default=20)
arguments.add_argument("--mcp", action="store_true", help="through an MCP server instead of the REST service")
arguments.add_argument("--limit", type=float, default=600.0, help="seconds, until all must be there")
options = arguments.parse_args()

DEADLINE = time.monotonic() + options.limit


def end_with_us() -> None:
    """What is started here ends with the thread that started it, however that ends. (The Python programs also watch their standard
    input.)"""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def port() -> int:
    """One that can be had again after a restart: the system gives those above to anybody who asks."""
    while True:
        chosen = random.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", chosen)) != 0:
                return chosen


class Program:
    """A child process, with its log."""

    def __init__(self, name: str, command: list, directory: Path, **environment: str):
        self.name, self.command, self.directory = name, [str(part) for part in command], directory
        self.environment = {**os.environ, "GRAPHITI_TELEMETRY_ENABLED": "false", "NO_PROXY": "127.0.0.1", **environment}
        self.process: subprocess.Popen | None = None

    def start(self) -> "Program":
        with (self.directory / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, preexec_fn=end_with_us,
            )  # fmt: skip
        return self

    def port(self) -> int:
        """Waits until one of the Python services says it."""
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"{self.name} did not start: see {self.directory}/{self.name}.log")
        return int(line.split()[-1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


class Road:
    def __init__(self, directory: Path):
        python, self.directory = sys.executable, directory
        self.programs: list[Program] = []

        def service(name: str, *command, **environment: str) -> tuple[Program, int]:
            program = Program(name, [python, *command], directory, **environment)
            self.programs.append(program)
            return program, program.start().port()

        _, self.falkordb = service("falkordb", SUPPORT / "falkordb_server.py", "--dir", directory)
        _, model = service("model", SUPPORT / "openai_stub.py")
        _, agent = service("agent", HERE / "agent.py", "--model", f"http://127.0.0.1:{model}")
        # The restart is at the same address.
        graphiti = port()
        script = ["graphiti_mcp_server.py", "--by-group"] if options.mcp else ["graphiti_service.py"]
        self.graphiti, _ = service(
            "graphiti", SUPPORT / script[0], *script[1:], "--falkordb-port", self.falkordb, "--port", graphiti,
            OPENAI_BASE_URL=f"http://127.0.0.1:{model}/v1", OPENAI_API_KEY="none",
        )  # fmt: skip
        self.listen, self.admin = port(), port()
        self.offramp = Program(
            "offramp", [Path(options.offramp).resolve(), "--config", HERE / "config.toml", "run"], directory,
            ROAD_LISTEN=f"127.0.0.1:{self.listen}", ROAD_ADMIN=f"127.0.0.1:{self.admin}",
            ROAD_AGENT=f"http://127.0.0.1:{agent}", ROAD_SINK="graphiti-mcp" if options.mcp else "graphiti",
            ROAD_GRAPHITI=f"http://127.0.0.1:{graphiti}{'/mcp' if options.mcp else ''}",
        )  # fmt: skip
        self.programs.append(self.offramp.start())

    def end(self) -> None:
        for program in reversed(self.programs):
            program.end()

    def ledger(self) -> dict | None:
        """None while offramp isn't up."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.admin}/api/v1/status", trust_env=False).json()["ledger"]
        except httpx.HTTPError:
            return None

    def nodes(self) -> list[dict]:
        command = [sys.executable, str(SUPPORT / "read_back.py"), "--falkordb-port", str(self.falkordb)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=self.directory).stdout)["episodes"]


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


class Talk:
    """All conversations. Every try is written down, the ones without an answer, too."""

    def __init__(self, road: Road):
        self.road, self.tries, self.answered = road, [], 0

    async def ask(self, client: AsyncOpenAI, session: str, question: str, streamed: bool) -> str:
        request = {"model": "parrot", "messages": [{"role": "user", "content": question}]}
        request["extra_headers"] = {"x-session-id": session}
        if not streamed:
            return (await client.chat.completions.create(**request)).choices[0].message.content
        chunks = [chunk async for chunk in await client.chat.completions.create(**request, stream=True)]
        if chunks[-1].choices[0].finish_reason != "stop":
            raise httpx.RemoteProtocolError("the stream broke off")
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    async def exchange(self, client: AsyncOpenAI, session: str, number: int) -> None:
        for attempt in range(1, 1_000_000):
            question = f"exchange {number} of {session}, try {attempt}"
            told = {"session": session, "question": question, "answer": None, "sent": milliseconds()}
            self.tries.append(told)
            try:
                told["answer"] = await self.ask(client, session, question, streamed=number % 2 == 1)
                told["answered"] = milliseconds()
                self.answered += 1
                return
            except (OpenAIError, httpx.HTTPError, IndexError) as error:
                told["error"] = repr(error)
                if time.monotonic() > DEADLINE:
                    raise
                await asyncio.sleep(0.05)

    async def conversation(self, client: AsyncOpenAI, session: str, numbers: range) -> None:
        for number in numbers:
            await self.exchange(client, session, number)

    async def misfortune(self, quarter: int, program: Program) -> None:
        """After so many quarters of the exchanges."""
        while self.answered < options.exchanges * quarter // 4:
            await asyncio.sleep(0.002)
        print(f"{self.answered} answered: {program.name} is killed", flush=True)
        program.kill()
        program.start()  # here and not in another thread: see end_with_us
        if program is self.road.graphiti:
            await asyncio.to_thread(program.port)

    async def run(self) -> None:
        sessions = [f"chat-{n}" for n in range(options.sessions)]
        each = -(-options.exchanges // options.sessions)
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as http:
            client = AsyncOpenAI(
                base_url=f"http://127.0.0.1:{self.road.listen}/v1", api_key="none", max_retries=0, http_client=http
            )
            numbers = [range(min(each, options.exchanges - each * n)) for n in range(options.sessions)]
            talks = [self.conversation(client, session, some) for session, some in zip(sessions, numbers, strict=True)]
            offramp, graphiti = self.road.offramp, self.road.graphiti
            misfortunes = [self.misfortune(n, program) for n, program in enumerate([offramp, graphiti, offramp], start=1)]
            await asyncio.gather(*misfortunes, *talks)


def wait_for_delivery(road: Road) -> dict:
    while True:
        ledger = road.ledger()
        if ledger and ledger["pending"] == 0:
            return ledger
        if time.monotonic() > DEADLINE:
            raise SystemExit(f"not all is there in time: {ledger}; the logs are in {road.directory}")
        time.sleep(0.2)


def faults(tries: list[dict], nodes: list[dict], ledger: dict) -> list[str]:
    """What is not as it should be."""
    found = [f"the ledger: {ledger}"] if ledger["gap"] or ledger["dead"] or ledger["delivered"] != ledger["captured"] else []
    if ledger["captured"] != len(nodes):
        found.append(f"{ledger['captured']} captured, {len(nodes)} nodes")
    by_question = defaultdict(list)
    for node in nodes:
        said = node["content"].split("user: ", 1)[-1]
        question, _, answer = said.partition("\nassistant: ")
        by_question[question].append({**node, "answer": answer})
    for question, count in Counter({question: len(found) for question, found in by_question.items()}).items():
        if count != 1:
            found.append(f"{count} times: {question}")
    last = {}
    for told in tries:
        there = by_question.pop(told["question"], [])
        if not there:
            if told["answer"] is not None:
                found.append(f"answered, and not there: {told['question']}")
            continue
        node, session = there[0], told["session"]
        if told["answer"] is not None and node["answer"] != told["answer"]:
            found.append(f"answered {told['answer']!r}, remembered {node['answer']!r}")
        if node["group_id"] != session:
            found.append(f"in group {node['group_id']}: {told['question']}")
        at, stored = (datetime.fromisoformat(node[key]).timestamp() for key in ("valid_at", "created_at"))
        # Later by a millisecond where the clock did not move on within the session.
        if not told["sent"] <= round(at * 1000) <= told.get("answered", milliseconds()) + 1:
            found.append(f"at {node['valid_at']}, sent at {told['sent']}: {told['question']}")
        if (at, stored) <= last.get(session, (0.0, 0.0)) or stored <= last.get(session, (0.0, 0.0))[1]:
            found.append(f"out of order: {told['question']}")
        last[session] = (at, stored)
    return found + [f"nobody asked: {question}" for question in by_question]


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="offramp-road-"))
    print(f"the logs are in {directory}", flush=True)
    road = Road(directory)
    try:
        talk, began = Talk(road), time.monotonic()
        asyncio.run(talk.run())
        talked = time.monotonic() - began
        print(f"{talk.answered} answered in {talked:.1f} s, {len(talk.tries) - talk.answered} tries cut off", flush=True)
        ledger = wait_for_delivery(road)
        print(f"all there after {time.monotonic() - began:.1f} s: {ledger}", flush=True)
        nodes = road.nodes()
        found = faults(talk.tries, nodes, ledger)
    finally:
        road.end()
    print("\n".join(found) or f"{len(nodes)} Episodic nodes: each exchange once, in order, at its time")
    return 1 if found or talk.answered != options.exchanges else 0


sys.exit(main())
