"""a2a 1.0: the SDK's client and the SDK's server talk to each other."""

import asyncio
import threading
from importlib.metadata import version

import httpx
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import new_data_part, new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as pb
from starlette.applications import Starlette

from golden import Relay, Stable, exchange, talk, write

FROM = f"a2a-sdk {version('a2a-sdk')} (Python): its client and its server"


class Agent(AgentExecutor):
    """Answers by what it is told to."""

    async def execute(self, context, queue):
        asked = context.get_user_input()
        if "message" in asked:
            await queue.enqueue_event(new_text_message("Hello Ana", context_id=context.context_id, role=pb.ROLE_AGENT))
            return
        task = context.current_task
        if not task:
            task = new_task_from_user_message(context.message)
            await queue.enqueue_event(task)
        updater = TaskUpdater(queue, task.id, task.context_id)
        say = lambda text: updater.new_agent_message([new_text_part(text)])
        await updater.start_work(say("Looking it up"))
        if "fail" in asked:
            await updater.failed(say("The model is down"))
        elif "ask" in asked:
            await updater.requires_input(say("Which city?"))
        elif "only" in asked:
            await updater.complete(say("It is sunny"))
        else:
            await updater.add_artifact([new_text_part("It is ")], artifact_id="a1", name="answer")
            await updater.add_artifact([new_text_part("sunny")], artifact_id="a1", append=True, last_chunk=True)
            if "two" in asked:
                await updater.add_artifact([new_text_part("Drafts: rain"), new_data_part({"degrees": 30})], artifact_id="a2")
                await updater.add_artifact([new_text_part("Take a hat")], artifact_id="a2")
            await updater.complete()

    async def cancel(self, context, queue):
        pass


relay = Relay()
card = pb.AgentCard(
    name="Weather", description="Tells the weather", version="1", default_input_modes=["text"], default_output_modes=["text"],
    capabilities=pb.AgentCapabilities(streaming=True), skills=[pb.AgentSkill(id="w", name="w", description="w", tags=["w"])],
    supported_interfaces=[pb.AgentInterface(url=relay.url + "/", protocol_binding="JSONRPC", protocol_version="1.0"),
                          pb.AgentInterface(url=relay.url, protocol_binding="HTTP+JSON", protocol_version="1.0")])
handler = DefaultRequestHandler(agent_executor=Agent(), task_store=InMemoryTaskStore(), agent_card=card)
app = Starlette(routes=create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/") + create_rest_routes(handler))
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    pass
relay.upstream = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


async def ask(text, binding, streaming, context_id=""):
    """Asks by the SDK's client, and gives the exchange that the relay saw."""
    config = ClientConfig(streaming=streaming, httpx_client=httpx.AsyncClient(timeout=30), supported_protocol_bindings=[binding], use_client_preference=True)
    client = ClientFactory(config).create(card)
    message = pb.Message(role=pb.ROLE_USER, message_id="m-1", context_id=context_id, parts=[pb.Part(text=text)])
    async for _ in client.send_message(pb.SendMessageRequest(message=message)):
        pass
    return relay.exchanges[-1]


def ids(recorded):
    """The ids of the context and the task that the server made up."""
    import re
    body = recorded["response"]["body"]
    task = re.search(r'"(?:taskId|id)"\s*:\s*"([0-9a-f-]{36})"', body)
    return re.search(r'"contextId"\s*:\s*"([^"]*)"', body).group(1), task and task.group(1)


def case(name, about, text, answer, state, binding="JSONRPC", streaming=False, end="complete", context_id="", none=False):
    recorded = asyncio.run(ask(text, binding, streaming, context_id))
    context, task = ids(recorded)
    metadata = {k: v for k, v in {"task_id": task if state else None, "state": state}.items() if v}
    path = {("JSONRPC", False): "/", ("JSONRPC", True): "/"}.get((binding, streaming), "/message:stream" if streaming else "/message:send")
    episode = None if none else talk(text, answer, session=context, end=end, **metadata)
    write("a2a", name, about, FROM, exchange(recorded, path, episode, Stable()))


R, D = "TASK_STATE_", "COMPLETED"
case("1.0-rpc-message", "A message is the answer; the new context is named in it.", "Send a message", "Hello Ana", None)
case("1.0-rpc-task", "A task with two artifacts, one of them in two parts; the context was there already.", "Tell me two", "It is \nsunny\nTake a hat", R + D, context_id="ctx-1")
case("1.0-rpc-task-question", "A task that waits for what it asks.", "You may ask", "Which city?", R + "INPUT_REQUIRED")
case("1.0-rpc-task-status-only", "A task that made nothing: its last word is the answer.", "Status only", "It is sunny", R + D)
case("1.0-rpc-task-failed", "A task that failed is no answer.", "Please fail", None, None, none=True)
case("1.0-rpc-stream", "Artifacts in pieces, one that is appended to and one that is replaced.", "Tell me two", "It is sunny\nTake a hat", R + D, streaming=True)
case("1.0-rpc-stream-message", "A message is all that comes.", "Send a message", "Hello Ana", None, streaming=True)
case("1.0-rpc-stream-question", "A task that waits for what it asks; what it said while it worked is no answer.", "You may ask", "Which city?", R + "INPUT_REQUIRED", streaming=True)
case("1.0-rpc-stream-failed", "A task that fails.", "Please fail", None, R + "FAILED", streaming=True, end="error")
case("1.0-rest-message", "The same by REST.", "Send a message", "Hello Ana", None, "HTTP+JSON")
case("1.0-rest-task", "The same by REST.", "Tell me", "It is \nsunny", R + D, "HTTP+JSON")
case("1.0-rest-stream", "The same by REST.", "Tell me two", "It is sunny\nTake a hat", R + D, "HTTP+JSON", True)


async def look_up():
    config = ClientConfig(streaming=False, httpx_client=httpx.AsyncClient(timeout=30), supported_protocol_bindings=["JSONRPC"])
    await asyncio.sleep(0)
    task = ids(await ask("Tell me", "JSONRPC", False))[1]
    await ClientFactory(config).create(card).get_task(pb.GetTaskRequest(id=task))
    return relay.exchanges[-1]


write("a2a", "1.0-rpc-get-task", "Another method of the same endpoint: no episode.", FROM, exchange(asyncio.run(look_up()), "/", None, Stable()))
