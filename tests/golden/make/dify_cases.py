"""dify: requests by the SDK's client; answers in the shapes of the server's task_entities.py and generate_response_converter.py."""

import json
from importlib.metadata import version

from dify_client import ChatClient

from golden import Relay, exchange, sse, talk, write

FROM = f"dify-client {version('dify-client')} (Python): request by its client, response hand-made after the server's task_entities.py"
PATH = "/v1/chat-messages"
relay = Relay()
client = ChatClient("none")
client.base_url = relay.url + "/v1"
BASE = {"conversation_id": "c-1", "message_id": "m-1", "created_at": 1767225600, "task_id": "t-1"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "currency": "USD", "latency": 0.5}


def meta(**more):
    return {"message_id": "m-1", **more}


def event(kind, **fields):
    return {"event": kind, **BASE, **fields}


def says(*answers, kind="message"):
    return [event(kind, id="m-1", answer=a) for a in answers]


END = event("message_end", id="m-1", metadata={"usage": USAGE, "retriever_resources": []})
PING = "event: ping\n\n"


def follow(body, conversation_id=None):
    """The text as a client that goes by the documentation puts it together."""
    relay.replies(body, "text/event-stream; charset=utf-8")
    text = ""
    for line in client.create_chat_message({}, "Who am I?", "ana", "streaming", conversation_id).iter_lines():
        if line.startswith(b"data: "):
            data = json.loads(line[6:])
            if data["event"] in ("message", "agent_message"):
                text += data["answer"]
            elif data["event"] == "message_replace":
                text = data["answer"]
    return text


relay.replies({"event": "message", **BASE, "id": "m-1", "mode": "chat", "answer": "You are Ana.", "metadata": {"usage": USAGE, "retriever_resources": []}})
assert client.create_chat_message({}, "Who am I?", "ana", conversation_id="c-1").json()["answer"] == "You are Ana."
write("dify", "plain", "A blocking answer in a conversation that is there already.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", session="c-1", user="ana", **meta(mode="chat", usage=USAGE))))

client._send_request("POST", "/chat-messages", {"inputs": {}, "query": "Who am I?", "user": "ana", "response_mode": "blocking", "conversation_id": ""})
write("dify", "plain-new-conversation", "The conversation is \"\", which means a new one; the answer names it.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", session="c-1", user="ana", **meta(mode="chat", usage=USAGE))))

relay.replies({"code": "invalid_param", "message": "Query is required", "status": 400}, status=400)
client.create_chat_message({}, "", "ana")
write("dify", "plain-400", "Refused: no episode.", FROM, exchange(relay.last(), PATH, None))

assert follow(sse(*says("You are"), PING, *says(" Ana", ". 👋"), END)) == "You are Ana. 👋"
write("dify", "stream", "A new conversation, with a keep-alive that has no data.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", session="c-1", user="ana", **meta(usage=USAGE))))

thought = {"id": "th-1", "position": 1, "observation": "", "tool": "", "tool_labels": {}, "tool_input": "", "message_files": []}
thoughts = [event("agent_thought", **{**thought, "thought": ""}),
            event("agent_thought", **{**thought, "thought": "I look it up.", "tool": "weather", "tool_input": "{\"city\": \"Lisbon\"}"}),
            event("agent_thought", **{**thought, "thought": "I look it up.", "tool": "weather", "tool_input": "{\"city\": \"Lisbon\"}", "observation": "sunny"})]
assert follow(sse(PING, thoughts[0], *says("I look it up.", kind="agent_message"), *thoughts[1:], *says(" It is sunny.", kind="agent_message"), END)) == "I look it up. It is sunny."
write("dify", "stream-agent", "An agent says, thinks and calls.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "I look it up. It is sunny.", session="c-1", user="ana", **meta(usage=USAGE, agent_thoughts=thoughts))))

assert follow(sse(*says("You are", " a fool"), event("message_replace", answer="I'd rather not say.", reason="output_moderation"), END)) == "I'd rather not say."
write("dify", "stream-replace", "Moderation takes back what was said.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "I'd rather not say.", session="c-1", user="ana", **meta(usage=USAGE))))

flow = {"workflow_run_id": "w-1"}
assert follow(sse(event("workflow_started", **flow, data={"id": "w-1", "inputs": {"sys.query": "Who am I?"}}),
                  event("node_started", **flow, data={"id": "n-1", "node_type": "llm", "title": "LLM"}), *says("You are", " Ana."),
                  event("node_finished", **flow, data={"id": "n-1", "outputs": {"text": "You are Ana."}, "status": "succeeded"}),
                  event("workflow_finished", **flow, data={"id": "w-1", "outputs": {"answer": "You are Ana."}, "status": "succeeded"}), END,
                  event("tts_message", audio="UklGRg=="), event("tts_message_end", audio=""))) == "You are Ana."
write("dify", "stream-chatflow", "A chatflow tells of its nodes; speech follows the end.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", session="c-1", user="ana", **meta(usage=USAGE))))

assert follow(sse(*says("You are"), event("error", code="completion_request_error", status=400, message="The model failed"))) == "You are"
write("dify", "stream-error", "It fails in the middle; HTTP stays 200.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are", session="c-1", user="ana", **meta(), end="error")))

assert follow(sse(*says("You are", " Ana."), END, end="\r\n")) == "You are Ana."
write("dify", "stream-crlf", "Lines end as in HTTP.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", session="c-1", user="ana", **meta(usage=USAGE))))
