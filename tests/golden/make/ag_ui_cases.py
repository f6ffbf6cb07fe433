"""ag-ui: requests and events by the SDK's types and encoder."""

import urllib.request
from importlib.metadata import version

from ag_ui.core import (
    AssistantMessage, EventType, MessagesSnapshotEvent, ReasoningMessageContentEvent, ReasoningMessageEndEvent, ReasoningMessageStartEvent,
    RunAgentInput, RunErrorEvent, RunFinishedEvent, RunStartedEvent, StateSnapshotEvent, TextMessageChunkEvent, TextMessageContentEvent,
    TextMessageEndEvent, TextMessageStartEvent, ToolCallArgsEvent, ToolCallEndEvent, ToolCallResultEvent, ToolCallStartEvent, UserMessage,
)
from ag_ui.encoder import EventEncoder

from golden import Relay, exchange, talk, write

FROM = f"ag-ui-protocol {version('ag-ui-protocol')} (Python): request and events of its types, by its encoder"
PATH = "/agents/{agent}"
relay = Relay()
encoder = EventEncoder()
STARTED = RunStartedEvent(thread_id="th-1", run_id="run-1")
FINISHED = RunFinishedEvent(thread_id="th-1", run_id="run-1")
ASK = [UserMessage(id="u0", content="Hello"), AssistantMessage(id="a0", content="Hi!"), UserMessage(id="u1", content="Who am I?")]


def text(ident, *deltas):
    return [TextMessageStartEvent(message_id=ident, role="assistant"), *[TextMessageContentEvent(message_id=ident, delta=d) for d in deltas],
            TextMessageEndEvent(message_id=ident)]


def run(*events, messages=ASK, end="\n", before=""):
    asked = RunAgentInput(thread_id="th-1", run_id="run-1", messages=messages, tools=[], context=[], state={}, forwarded_props={})
    relay.replies(before + "".join(encoder.encode(e) for e in events).replace("\n", end), encoder.get_content_type())
    body = asked.model_dump_json(by_alias=True).encode()
    request = urllib.request.Request(relay.url + "/agents/weather", body, {"content-type": "application/json", "accept": "text/event-stream"})
    urllib.request.urlopen(request).read()
    return relay.last()


def meta(**more):
    return {"run_id": "run-1", **more}


def ana(asked, answered, **rest):
    return talk(asked, answered, session="th-1", agent="weather", **rest)


write("ag-ui", "stream", "A message in pieces.", FROM,
      exchange(run(STARTED, *text("m1", "You are", " Ana", ". 👋"), FINISHED), PATH, ana("Who am I?", "You are Ana. 👋", **meta())))

chunks = [TextMessageChunkEvent(message_id="m1", role="assistant", delta="You are"), TextMessageChunkEvent(delta=" Ana"), TextMessageChunkEvent(delta="."),
          TextMessageChunkEvent(message_id="m2", delta="Who"), TextMessageChunkEvent(delta=" else?")]
write("ag-ui", "stream-chunks", "Chunks: only the first of a message bears its id.", FROM,
      exchange(run(STARTED, *chunks, FINISHED), PATH, ana("Who am I?", "You are Ana.\nWho else?", **meta())))

calls = [ToolCallStartEvent(tool_call_id="call_1", tool_call_name="weather", parent_message_id="m1"), ToolCallArgsEvent(tool_call_id="call_1", delta="{\"city\":"),
         ToolCallArgsEvent(tool_call_id="call_1", delta="\"Lisbon\"}"), ToolCallEndEvent(tool_call_id="call_1"),
         ToolCallResultEvent(message_id="t1", tool_call_id="call_1", content="sunny", role="tool")]
CALLED = {"tool_calls": [{"type": "TOOL_CALL_START", "toolCallId": "call_1", "toolCallName": "weather", "parentMessageId": "m1"}], "tool_input": "{\"city\":\"Lisbon\"}"}
write("ag-ui", "stream-tool", "Two messages and a tool call between them.", FROM,
      exchange(run(STARTED, *text("m1", "Let me", " look."), *calls, *text("m2", "It is", " sunny."), FINISHED), PATH,
               ana("Who am I?", "Let me look.\nIt is sunny.", **meta(**CALLED))))
write("ag-ui", "stream-tool-call-only", "The agent calls a tool of the frontend's and says nothing.", FROM,
      exchange(run(STARTED, *calls[:4], FINISHED), PATH, ana("Who am I?", None, **meta(**CALLED))))

thought = [ReasoningMessageStartEvent(message_id="r1", role="reasoning"), ReasoningMessageContentEvent(message_id="r1", delta="They want"),
           ReasoningMessageContentEvent(message_id="r1", delta=" a name."), ReasoningMessageEndEvent(message_id="r1")]
write("ag-ui", "stream-reasoning", "The agent thinks first.", FROM,
      exchange(run(STARTED, *thought, *text("m1", "You are Ana."), FINISHED), PATH, ana("Who am I?", "You are Ana.", **meta(reasoning="They want a name."))))

before = MessagesSnapshotEvent(messages=ASK)
after = MessagesSnapshotEvent(messages=[*ASK, AssistantMessage(id="m1", content="You are Ana, I think.")])
write("ag-ui", "stream-snapshot", "A snapshot of the conversation at the start says nothing new; the one at the end has the reply in full.", FROM,
      exchange(run(STARTED, before, StateSnapshotEvent(snapshot={"step": 1}), *text("m1", "You are", " Ana"), after, FINISHED), PATH,
               ana("Who am I?", "You are Ana, I think.", **meta())))
write("ag-ui", "stream-snapshot-only", "An agent that doesn't stream its words.", FROM,
      exchange(run(STARTED, after, FINISHED), PATH, ana("Who am I?", "You are Ana, I think.", **meta())))

write("ag-ui", "stream-error", "The run fails in the middle.", FROM,
      exchange(run(STARTED, *text("m1", "You are")[:2], RunErrorEvent(message="The model failed", code="500")), PATH,
               ana("Who am I?", "You are", **meta(error="The model failed"), end="error")))

parts = [UserMessage(id="u1", content=[{"type": "text", "text": "What is this?"},
                                       {"type": "image", "source": {"type": "url", "value": "https://example.com/cat.png", "mimeType": "image/png"}}])]
write("ag-ui", "stream-crlf", "A question in parts; comments, and lines that end as in HTTP.", FROM,
      exchange(run(STARTED, *text("m1", "A", " cat."), FINISHED, messages=parts, end="\r\n", before=": hello\r\n\r\n"), PATH, ana("What is this?", "A cat.", **meta())))
