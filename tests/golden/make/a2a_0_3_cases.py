"""a2a 0.3: the SDK's client and the SDK's server talk to each other."""

import asyncio
import re
import threading
from importlib.metadata import version

import httpx
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.server.agent_execution import AgentExecutor
from a2a.server.apps import A2ARESTFastAPIApplication, A2AStarletteApplication
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities, AgentCard, AgentSkill, DataPart, Message, Part, Role, TaskQueryParams, TextPart, TransportProtocol,
)
from a2a.utils import new_agent_text_message, new_task

from golden import Relay, Stable, exchange, talk, write

FROM = f"a2a-sdk {version('a2a-sdk')} (Python): its client and its server"


def text_part(text):
    return Part(root=TextPart(text=text))


class Agent(AgentExecutor):
    """Answers by what it is told to."""

    async def execute(self, context, queue):
        asked = context.get_user_input()
        if "message" in asked:
            await queue.enqueue_event(new_agent_text_message("Hello Ana", context_id=context.context_id))
            return
        task = context.current_task
        if not task:
            task = new_task(context.message)
            await queue.enqueue_event(task)
        updater = TaskUpdater(queue, task.id, task.context_id)
        say = lambda text: updater.new_agent_message([text_part(text)])
        await updater.start_work(say("Looking it up"))
        if "fail" in asked:
            await updater.failed(say("The model is down"))
        elif "ask" in asked:
            await updater.requires_input(say("Which city?"), final=True)
        else:
            await updater.add_artifact([text_part("It is ")], artifact_id="a1", name="answer")
            await updater.add_artifact([text_part("sunny")], artifact_id="a1", append=True, last_chunk=True)
            if "two" in asked:
                await updater.add_artifact([text_part("Take a hat"), Part(root=DataPart(data={"degrees": 30}))], artifact_id="a2")
            await updater.complete()

    async def cancel(self, context, queue):
        pass


relay = Relay()


def serving(rest):
    card = AgentCard(
        name="Weather", description="Tells the weather", version="1", url=relay.url + ("" if rest else "/"), default_input_modes=["text"],
        default_output_modes=["text"], capabilities=AgentCapabilities(streaming=True),
        preferred_transport=TransportProtocol.http_json if rest else TransportProtocol.jsonrpc,
        skills=[AgentSkill(id="w", name="w", description="w", tags=["w"])])
    handler = DefaultRequestHandler(agent_executor=Agent(), task_store=InMemoryTaskStore())
    app = (A2ARESTFastAPIApplication if rest else A2AStarletteApplication)(agent_card=card, http_handler=handler).build()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        pass
    return card, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


SERVERS = {rest: serving(rest) for rest in (False, True)}


def client(rest, streaming):
    card, relay.upstream = SERVERS[rest]
    transports = [TransportProtocol.http_json if rest else TransportProtocol.jsonrpc]
    config = ClientConfig(streaming=streaming, httpx_client=httpx.AsyncClient(timeout=30), supported_transports=transports)
    return ClientFactory(config).create(card)


async def ask(text, rest, streaming, context_id=None):
    message = Message(role=Role.user, message_id="m-1", context_id=context_id, parts=[text_part(text)])
    async for _ in client(rest, streaming).send_message(message):
        pass
    return relay.exchanges[-1]


def ids(recorded):
    """The ids of the context and the task that the server made up."""
    body = recorded["response"]["body"]
    task = re.search(r'"taskId"\s*:\s*"([0-9a-f-]{36})"', body)
    return re.search(r'"contextId"\s*:\s*"([^"]*)"', body).group(1), task and task.group(1)


def case(name, about, text, answer, state, rest=False, streaming=False, end="complete", context_id=None, none=False):
    recorded = asyncio.run(ask(text, rest, streaming, context_id))
    context, task = ids(recorded)
    metadata = {k: v for k, v in {"task_id": task if state else None, "state": state}.items() if v}
    path = ("/v1/message:stream" if streaming else "/v1/message:send") if rest else "/"
    episode = None if none else talk(text, answer, session=context, end=end, **metadata)
    write("a2a", name, about, FROM, exchange(recorded, path, episode, Stable()))


case("0.3-rpc-message", "A message is the answer; the new context is named in it.", "Send a message", "Hello Ana", None)
case("0.3-rpc-task", "A task with two artifacts, one of them in two parts; the context was there already.", "Tell me two", "It is \nsunny\nTake a hat",
     "completed", context_id="ctx-1")
case("0.3-rpc-task-question", "A task that waits for what it asks.", "You may ask", "Which city?", "input-required")
case("0.3-rpc-task-failed", "A task that failed is no answer.", "Please fail", None, None, none=True)
case("0.3-rpc-stream", "Artifacts in pieces, and the last event says so.", "Tell me two", "It is sunny\nTake a hat", "completed", streaming=True)
case("0.3-rpc-stream-message", "A message is all that comes.", "Send a message", "Hello Ana", None, streaming=True)
case("0.3-rpc-stream-question", "A task that waits for what it asks; what it said while it worked is no answer.", "You may ask", "Which city?",
     "input-required", streaming=True)
case("0.3-rpc-stream-failed", "A task that fails.", "Please fail", None, "failed", streaming=True, end="error")
case("0.3-rest-message", "By REST, where a message has `content` instead of parts.", "Send a message", "Hello Ana", None, rest=True)
case("0.3-rest-stream", "By REST, where each event has its JSON in many lines.", "Tell me two", "It is sunny\nTake a hat", "TASK_STATE_COMPLETED",
     rest=True, streaming=True)
case("0.3-rest-stream-message", "By REST: a message is all that comes.", "Send a message", "Hello Ana", None, rest=True, streaming=True)


async def look_up():
    task = ids(await ask("Tell me", False, False))[1]
    await client(False, False).get_task(TaskQueryParams(id=task))
    return relay.exchanges[-1]


write("a2a", "0.3-rpc-get-task", "Another method of the same endpoint: no episode.", FROM, exchange(asyncio.run(look_up()), "/", None, Stable()))

# What the protocol's server refuses.
relay.canned = (200, [("content-type", "application/json")], b'{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"Internal error"}}')
try:
    asyncio.run(ask("Tell me", False, False))
except Exception as error:
    assert "Internal" in str(error), error
write("a2a", "0.3-rpc-error", "An error of JSON-RPC, under a status of success: no episode.", FROM + ", the answer after its JSONRPCErrorResponse",
      exchange(relay.exchanges[-1], "/", None, Stable()))
