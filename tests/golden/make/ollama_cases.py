"""ollama-chat: requests by the SDK's client; answers of the SDK's types, which its client has to understand."""

import json

import ollama
from importlib.metadata import version
from ollama import ChatResponse

from golden import Relay, exchange, talk, write

FROM = f"ollama {version('ollama')} (Python): request by its client, response of its types and read by its client"
PATH, MODEL = "/api/chat", "llama3.2"
relay = Relay()
client = ollama.Client(host=relay.url)
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who am I?"}]
COUNTS = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 26, "prompt_eval_duration": 3, "eval_count": 5, "eval_duration": 4}
CALL = {"function": {"name": "weather", "arguments": {"city": "Lisbon"}}}


def part(message, done=None):
    body = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", **message}, "done": done is not None}
    if done:
        body |= {"done_reason": done, **COUNTS}
    ChatResponse.model_validate(body)
    return body


def meta(done="stop", **more):
    counts = {"finish_reason": done, "prompt_tokens": 26, "completion_tokens": 5} if done else {}
    return {"model": MODEL, **counts, **more}


def ndjson(*parts, end="\n"):
    return "".join(json.dumps(p, separators=(",", ":"), ensure_ascii=False) + end for p in parts)


def follow(body, fails=False, content_type="application/x-ndjson", **arguments):
    relay.replies(body, content_type)
    text = ""
    try:
        for piece in client.chat(model=MODEL, messages=ASK, stream=True, **arguments):
            text += piece.message.content or ""
        assert not fails
    except ollama.ResponseError:
        assert fails
    return text


relay.replies(part({"content": "You are Ana."}, "stop"), "application/json; charset=utf-8")
assert client.chat(model=MODEL, messages=ASK).message.content == "You are Ana."
write("ollama-chat", "plain", "A question and its answer.", FROM, exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", agent=MODEL, **meta())))

relay.replies(part({"content": "", "tool_calls": [CALL]}, "stop"))
client.chat(model=MODEL, messages=ASK)
write("ollama-chat", "plain-tool-call-only", "The model calls a tool and says nothing.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", None, agent=MODEL, **meta(tool_calls=[CALL]))))

TEXT = [part({"content": "You are"}), part({"content": " Ana"}), part({"content": ". 👋"}), part({"content": ""}, "stop")]
assert follow(ndjson(*TEXT)) == "You are Ana. 👋"
write("ollama-chat", "stream", "Lines, the last of them with the counts.", FROM, exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", agent=MODEL, **meta())))

assert follow(ndjson(*TEXT).removesuffix("\n")) == "You are Ana. 👋"
write("ollama-chat", "stream-last-line-open", "The last line has no end.", FROM, exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", agent=MODEL, **meta())))

relay.replies(ndjson(*TEXT, end="\r\n"), "application/x-ndjson")
client.chat(model=MODEL, messages=ASK, stream=True).__next__()
write("ollama-chat", "stream-crlf", "Lines end as in HTTP.", FROM, exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", agent=MODEL, **meta())))

thinking = [part({"content": "", "thinking": "They want"}), part({"content": "", "thinking": " a name."}), *TEXT]
assert follow(ndjson(*thinking), think=True) == "You are Ana. 👋"
write("ollama-chat", "stream-thinking", "The model thinks first.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", agent=MODEL, **meta(reasoning="They want a name."))))

assert follow(ndjson(part({"content": "", "tool_calls": [CALL]}), part({"content": ""}, "stop"))) == ""
write("ollama-chat", "stream-tool-call-only", "The model calls a tool and says nothing.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", None, agent=MODEL, **meta(tool_calls=[CALL]))))

assert follow(ndjson(*TEXT[:2], {"error": "llama runner process has terminated"}), fails=True) == "You are Ana"
write("ollama-chat", "stream-error", "It fails in the middle; HTTP stays 200.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana", agent=MODEL, **meta(None), end="error")))

assert follow(ndjson(*TEXT), content_type="application/json") == "You are Ana. 👋"
chunked = relay.last()
chunked["response"]["headers"]["transfer-encoding"] = "chunked"
write("ollama-chat", "stream-as-json", "Some servers of its shape call their lines application/json.", FROM,
      exchange(chunked, PATH, talk("Who am I?", "You are Ana. 👋", agent=MODEL, **meta())))

cut = ndjson(*TEXT[:3])[:-20]
write("ollama-chat", "stream-broken-off", "The upstream breaks off inside of a line.", FROM + ", cut short",
      exchange({**relay.last(), "response": {"status": 200, "headers": {"content-type": "application/x-ndjson"}, "body": cut}}, PATH,
               talk("Who am I?", "You are Ana", agent=MODEL, **meta(None), end="error"), ending="error"))
