"""langgraph: the SDK's client and the server that `langgraph dev` starts, with the graph of langgraph/graph.py."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import version

from langgraph_sdk import get_client

from golden import Relay, Stable, exchange, talk, write

FROM = (f"langgraph-sdk {version('langgraph-sdk')} (Python) and the server langgraph-api {version('langgraph-api')} "
        f"with langgraph {version('langgraph')}")
THREAD, STATELESS = "/threads/{thread_id}/runs/{*kind}", "/runs/{*kind}"
USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
ABOUT = {"usage": USAGE, "model": "script-1", "finish_reason": "stop"}

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
work = tempfile.mkdtemp()
for name in ("graph.py", "langgraph.json"):
    (pathlib.Path(work) / name).write_text((pathlib.Path(__file__).parent / "langgraph" / name).read_text())
command = [pathlib.Path(sys.executable).parent / "langgraph", "dev", "--no-browser", "--no-reload", "--port", str(port)]
server = subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env={**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"})
upstream = f"http://127.0.0.1:{port}"
while True:
    try:
        urllib.request.urlopen(upstream + "/ok")
        break
    except OSError:
        assert server.poll() is None

relay = Relay(upstream)


def slim(recorded):
    """Leaves out of the metadata of each chunk what only says how and where it ran: it is most of the bytes and none of the meaning."""
    kept_lines = []
    for line in recorded["response"]["body"].splitlines(keepends=True):
        if line.startswith("data: ["):
            data = json.loads(line[6:])
            if len(data) == 2 and "langgraph_node" in data[1]:
                data[1] = {k: data[1][k] for k in ("thread_id", "run_id", "langgraph_node", "langgraph_step") if k in data[1]}
                line = "data: " + json.dumps(data, separators=(",", ":"), ensure_ascii=False) + line[len(line.rstrip("\r\n")):]
        elif line.startswith('data: {"lc_run'):
            line = "data: {}" + line[len(line.rstrip("\r\n")):]
        kept_lines.append(line)
    recorded["response"]["body"] = "".join(kept_lines)
    return recorded


async def main():
    client = get_client(url=relay.url)

    async def thread():
        return (await client.threads.create())["thread_id"]

    async def run(name, about, asked, answer, modes=None, thread_id=None, path=THREAD, end="complete", none=False, command=None, stateless=False, **meta):
        ident = None if stateless else thread_id or await thread()
        said = {"command": command} if command else {"input": {"messages": [{"role": "user", "content": asked}]}}
        if modes:
            async for _ in client.runs.stream(ident, "agent", stream_mode=modes, context={"user_id": "ana"}, **said):
                pass
        else:
            await client.runs.wait(ident, "agent", raise_error=False, context={"user_id": "ana"}, **said)
        recorded = slim(next(e for e in reversed(relay.exchanges) if "/runs/" in e["request"]["target"] and e["request"]["method"] == "POST"))
        run_id = None
        for line in recorded["response"]["body"].splitlines():
            if line.startswith('data: {"run_id"'):
                run_id = json.loads(line[6:])["run_id"]
        metadata = {**({"run_id": run_id} if run_id else {}), **meta}
        episode = None if none else talk(asked, answer, session=ident, user="ana", agent="agent", end=end, **metadata)
        write("langgraph", name, about, FROM, exchange(recorded, STATELESS if stateless else THREAD, episode, Stable()))
        return ident

    calls = [{"name": "weather", "args": "", "id": "call_1", "index": 0, "type": "tool_call_chunk"},
             {"name": None, "args": '{"city":', "id": None, "index": 0, "type": "tool_call_chunk"},
             {"name": None, "args": '"Lisbon"}', "id": None, "index": 0, "type": "tool_call_chunk"}]
    called = [{"name": "weather", "args": {"city": "Lisbon"}, "id": "call_1", "type": "tool_call"}]

    kept = await run("wait", "The final state is the answer.", "Who am I?", "You are Ana.", **ABOUT)
    await run("wait-second", "The second turn of a thread: the state repeats the first.", "What's the weather?", "It is sunny.", thread_id=kept, **ABOUT)
    await run("wait-failed", "A run that failed answers 200: no episode.", "Please fail", None, none=True)
    await run("wait-keepalive", "A slow run: the body begins with line breaks that keep the connection alive.", "Be slow", "You are Ana.", **ABOUT)
    await run("wait-stateless", "A run without a thread is a session of its own.", "Who am I?", "You are Ana.", stateless=True, **ABOUT)
    asking = await run("wait-interrupted", "A run that was interrupted asks.", "Please book it", "Shall I book it?")
    await run("wait-resumed", "What answers an interrupt is said by the user.", "yes", "Booked: yes.", thread_id=asking, command={"resume": "yes"})
    await run("stream-messages-tuple", "Chunks by message, with a tool call between them.", "What's the weather?", "Let me look.\nIt is sunny.",
              ["messages-tuple"], tool_calls=calls, **ABOUT)
    await run("stream-messages", "Each message so far, again and again.", "Who am I?", "You are Ana.", ["messages"], **ABOUT)
    await run("stream-values", "The whole state after each step, with the turn before.", "What's the weather?", "It is sunny.", ["values"], thread_id=kept, tool_calls=called,
              **ABOUT)
    await run("stream-updates", "What each node wrote.", "What's the weather?", "It is sunny.", ["updates"], tool_calls=called, **ABOUT)
    await run("stream-modes", "Several modes at once: nothing is said twice.", "What's the weather?", "It is sunny.", ["messages-tuple", "values", "updates"],
              tool_calls=called, **ABOUT)
    await run("stream-heartbeat", "A slow run: comments keep the connection alive.", "Be slow", "You are Ana.", ["messages-tuple"], **ABOUT)
    await run("stream-failed", "A run that fails.", "Please fail", None, ["messages-tuple", "values"], end="error")
    await run("stream-stateless", "A run without a thread is a session of its own.", "Who am I?", "You are Ana.", ["messages-tuple"], stateless=True, **ABOUT)


try:
    asyncio.run(main())
finally:
    server.terminate()
    server.wait()
