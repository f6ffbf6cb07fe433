"""openai-chat and openai-responses: requests by the SDK's client; answers of the SDK's types, which its client has to understand."""

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from golden import Relay, exchange, lines, said, sse, talk, write

FROM = f"openai {openai.__version__} (Python): request by its client, response of its types and read by its client"
DOC = f"openai {openai.__version__} (Python): request by its client; response hand-made after "
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
relay = Relay()
client = openai.OpenAI(base_url=relay.url + "/v1", api_key="none", max_retries=0)
MODEL = "gpt-5.6-mini"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who am I?"}]


# Chat completions, whole.

def whole(message, finish="stop", **more):
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1767225600, "model": f"{MODEL}-2026-01-01",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": finish}], "usage": USAGE, **more,
    }
    ChatCompletion.model_validate(body)
    return body


def meta(finish="stop", usage=USAGE, **more):
    return {k: v for k, v in {"response_id": "chatcmpl-1", "model": f"{MODEL}-2026-01-01", "finish_reason": finish, "usage": usage, **more}.items() if v}


def chat(body, **arguments):
    relay.replies(body)
    arguments = {"messages": ASK, "model": MODEL, **arguments}
    return client.chat.completions.create(**arguments)


answer = chat(whole({"content": "You are Ana."}), user="ana", metadata={"session_id": "s-1"})
assert answer.choices[0].message.content == "You are Ana."
write("openai-chat", "plain", "A question and its answer; the session is in the metadata.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", "You are Ana.", session="s-1", user="ana", agent=MODEL, **meta())))

chat(whole({"content": "A cat, and a dog."}), messages=[
    {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
                                 {"type": "text", "text": "And that?"}]},
], extra_headers={"X-OpenWebUI-Chat-Id": "chat-7", "X-OpenWebUI-User-Id": "u-7"})
write("openai-chat", "plain-parts", "The last of several user messages, in parts, one of them an image; the session is in a header of Open WebUI.", FROM,
      exchange(relay.last(), CHAT, talk("What is this?\nAnd that?", "A cat, and a dog.", session="chat-7", user="u-7", agent=MODEL, **meta())))

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Lisbon\"}"}}
answer = chat(whole({"content": None, "refusal": None, "tool_calls": [CALL]}, "tool_calls"), safety_identifier="hash-1")
assert answer.choices[0].message.tool_calls[0].function.name == "weather"
write("openai-chat", "plain-tool-call-only", "The model calls a tool and says nothing: an episode without an answer.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", None, user="hash-1", agent=MODEL, **meta("tool_calls", tool_calls=[CALL]))))

chat(whole({"content": "It is sunny.", "reasoning": "They asked for the weather."}), messages=ASK + [
    {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}])
write("openai-chat", "plain-after-tool", "What a tool gave back is nobody's question: the last user message stands. With a server's reasoning.",
      DOC + "vLLM's reasoning outputs", exchange(relay.last(), CHAT, talk("Who am I?", "It is sunny.", agent=MODEL, **meta(reasoning="They asked for the weather."))))

chat(whole({"content": None, "refusal": "I cannot help with that."}))
write("openai-chat", "plain-refusal", "A refusal is not the answer's text.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", None, agent=MODEL, **meta(refusal="I cannot help with that."))))

chat({"error": {"message": "Upstream is down", "code": 502}})
write("openai-chat", "plain-error-in-200", "Some routers answer 200 with an error: no episode.", DOC + "OpenRouter's errors", exchange(relay.last(), CHAT, None))

relay.replies({"error": {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}, status=429)
try:
    client.chat.completions.create(messages=ASK, model=MODEL)
    raise AssertionError
except openai.RateLimitError:
    pass
write("openai-chat", "plain-429", "Refused: no episode.", FROM, exchange(relay.last(), CHAT, None))


# Chat completions, streamed.

def chunk(delta=None, finish=None, index=0, usage=None, **more):
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1767225600, "model": f"{MODEL}-2026-01-01", "choices": choices, "usage": usage, **more}
    ChatCompletionChunk.model_validate(body)
    return body


def streamed(body, fails=False, **arguments):
    """The text and the tool calls that the SDK's own accumulation comes to."""
    relay.replies(body, "text/event-stream; charset=utf-8")
    text, n = "", 0
    try:
        for event in client.chat.completions.create(messages=ASK, model=MODEL, stream=True, **arguments):
            for choice in event.choices:
                if choice.index == 0:
                    text += choice.delta.content or ""
            n += 1
        assert not fails
    except openai.APIError:
        assert fails
    return text


HELLO = [chunk({"role": "assistant", "content": "", "refusal": None}), chunk({"content": "You are"}), chunk({"content": " Ana"}), chunk({"content": ". 👋"})]
END = chunk({}, "stop")
TEXT = "You are Ana. 👋"
DONE = "data: [DONE]\n\n"

assert streamed(sse(*HELLO, END, done="[DONE]"), metadata={"thread_id": "t-1"}) == TEXT
write("openai-chat", "stream", "Deltas, the last chunk's reason, the marker.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, session="t-1", agent=MODEL, **meta(usage=None))))

assert streamed(sse(*HELLO, END, chunk(usage=USAGE), done="[DONE]"), stream_options={"include_usage": True}) == TEXT
write("openai-chat", "stream-usage", "The usage comes in a chunk of its own, whose choices are empty.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta())))

crlf = sse(*HELLO, END, done="[DONE]", end="\r\n")
assert streamed(crlf) == TEXT
write("openai-chat", "stream-crlf", "Lines end as in HTTP.", FROM, exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None))))

cr = sse(*HELLO, END, done="[DONE]", end="\r")
assert streamed(cr) == TEXT
write("openai-chat", "stream-cr", "Lines end with a carriage return alone, which the format allows.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None))))

beats = ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + sse(*HELLO[:2]) + ": OPENROUTER PROCESSING\n\n" + sse(*HELLO[2:], END, done="[DONE]")
assert streamed(beats) == TEXT
write("openai-chat", "stream-comments", "Comments keep the connection alive.", DOC + "OpenRouter's streaming", 
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None))))

bom = "\ufeff" + sse(*HELLO[:1]) + "id: 1\nretry: 3000\n" + sse(*HELLO[1:], END, done="[DONE]").replace("data: {", "data:{")
relay.replies(bom, "text/event-stream")
client.chat.completions.with_raw_response.create(messages=ASK, model=MODEL, stream=True)
write("openai-chat", "stream-bom", "A byte order mark, other fields, and no space after the colon.", DOC + "WHATWG HTML, server-sent events",
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None))))

assert streamed(sse(*HELLO, END)) == TEXT
write("openai-chat", "stream-without-marker", "The upstream just ends.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None))))

PIECES = [
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{\"city\":"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "\"Lisbon\"}"}}]},
]
streamed(sse(chunk({"role": "assistant", "content": None}), *[chunk(p) for p in PIECES], chunk({}, "tool_calls"), done="[DONE]"))
write("openai-chat", "stream-tool-call-only", "A tool call in fragments, and no text.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", None, agent=MODEL, **meta("tool_calls", None, tool_calls=[p["tool_calls"][0] for p in PIECES]))))

thinking = [chunk({"role": "assistant", "content": "", "reasoning": "They want", "reasoning_content": "They want"}),
            chunk({"content": "", "reasoning": " a name.", "reasoning_content": " a name."})]
assert streamed(sse(*thinking, *HELLO[1:], END, done="[DONE]")) == TEXT
write("openai-chat", "stream-reasoning", "Reasoning, in both of the fields that servers use.", DOC + "OpenRouter's reasoning tokens",
      exchange(relay.last(), CHAT, talk("Who am I?", TEXT, agent=MODEL, **meta(usage=None, reasoning="They want a name."))))

two = [chunk({"role": "assistant", "content": ""}), chunk({"role": "assistant", "content": ""}, index=1), chunk({"content": "You are"}),
       chunk({"content": "No"}, index=1), chunk({"content": " idea."}, index=1), chunk({"content": " Ana."}), chunk({}, "length", index=1), chunk({}, "stop")]
assert streamed(sse(*two, done="[DONE]"), n=2) == "You are Ana."
write("openai-chat", "stream-two-choices", "Two answers woven into each other: the first is recorded.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", "You are Ana.", agent=MODEL, **meta(usage=None))))

assert streamed(sse(*HELLO[:3], {"error": {"message": "The server had an error", "type": "server_error", "code": None}}), fails=True) == "You are Ana"
write("openai-chat", "stream-error", "It fails in the middle; HTTP stays 200.", FROM,
      exchange(relay.last(), CHAT, talk("Who am I?", "You are Ana", agent=MODEL, **meta(None, None), end="error")))

streamed(sse({"error": {"message": "Overloaded", "type": "server_error", "code": 503}}, done="[DONE]"), fails=True)
write("openai-chat", "stream-error-only", "It fails before a word was said: no episode.", FROM, exchange(relay.last(), CHAT, None))

cut = sse(*HELLO)[:-40]
relay.replies(cut, "text/event-stream")
write("openai-chat", "stream-broken-off", "The upstream breaks off inside of an event.", FROM + ", cut short",
      exchange({**relay.exchanges[-1], "response": {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": cut}}, CHAT,
               talk("Who am I?", "You are Ana", agent=MODEL, **meta(None, None), end="error"), ending="error"))

left = sse(*HELLO[:2])
write("openai-chat", "stream-cancelled", "The client leaves after the first words.", FROM + ", cut short",
      exchange({**relay.exchanges[-1], "response": {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": left}}, CHAT,
               talk("Who am I?", "You are", agent=MODEL, **meta(None, None), end="cancelled"), ending="cancelled"))


# Responses.

def message(text, ident="msg_1", **more):
    return {"id": ident, "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}], **more}


R_USAGE = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 4,
           "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13}


def response(*output, ident="resp_1", status="completed", usage=R_USAGE, **more):
    body = {"id": ident, "object": "response", "created_at": 1767225600, "status": status, "error": None, "incomplete_details": None,
            "model": f"{MODEL}-2026-01-01", "output": list(output), "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "previous_response_id": None, "usage": usage, **more}
    Response.model_validate(body)
    return body


def r_meta(ident="resp_1", status="completed", usage=R_USAGE, **more):
    return {k: v for k, v in {"response_id": ident, "model": f"{MODEL}-2026-01-01", "status": status, "usage": usage, **more}.items() if v}


def respond(body, **arguments):
    relay.replies(body)
    return client.responses.create(**{"model": MODEL, "input": "Who am I?", **arguments})


assert respond(response(message("You are Ana."), conversation={"id": "conv_1"}), conversation="conv_1", user="ana").output_text == "You are Ana."
write("openai-responses", "plain", "The input is a text; the session is the conversation.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "You are Ana.", session="conv_1", user="ana", agent=MODEL, **r_meta())))

respond(response(message("Let me look that up.", "msg_1", phase="commentary"), message("You are Ana.", "msg_2", phase="final_answer")), input=[
    {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Who am I?"}, {"type": "input_image", "image_url": "https://example.com/me.png", "detail": "auto"}]},
], conversation={"id": "conv_2"})
write("openai-responses", "plain-messages", "The input is a list, whose last user item has parts; the output has two messages.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "Let me look that up.\nYou are Ana.", session="conv_2", agent=MODEL, **r_meta())))

FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Lisbon\"}", "status": "completed"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "They want the weather."}]}
respond(response(REASONING, FUNCTION))
first = exchange(relay.last(), RESPONSES, talk("Who am I?", None, session="resp_1", agent=MODEL,
                                               **r_meta(reasoning="They want the weather.", tool_calls=FUNCTION)))
respond(response(message("It is sunny."), ident="resp_2", previous_response_id="resp_1"), previous_response_id="resp_1",
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "sunny"}])
second = exchange(relay.last(), RESPONSES, talk(None, "It is sunny.", session="resp_1", agent=MODEL, **r_meta("resp_2")))
respond(response(message("You are welcome."), ident="resp_3", previous_response_id="resp_2"), previous_response_id="resp_2", input="Thanks")
third = exchange(relay.last(), RESPONSES, talk("Thanks", "You are welcome.", session="resp_1", agent=MODEL, **r_meta("resp_3")))
write("openai-responses", "plain-chain", "A chain of responses is one session, named after its first: a tool call, what the tool gave back, a further question.",
      FROM, first, second, third)

respond(response(status="failed", usage=None, error={"code": "server_error", "message": "The model failed"}))
write("openai-responses", "plain-failed", "What failed is no episode.", FROM, exchange(relay.last(), RESPONSES, None))

respond(response(message("You are"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}))
write("openai-responses", "plain-incomplete", "Cut off by the model's limit: that is an answer.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "You are", session="resp_1", agent=MODEL, **r_meta(status="incomplete", finish_reason="max_output_tokens"))))


class Events:
    """Numbers the events."""

    def __init__(self):
        self.events = []

    def __call__(self, kind, **fields):
        self.events.append({"type": kind, **fields, "sequence_number": len(self.events)})
        return self

    def message(self, at, ident, *deltas):
        item = {"id": ident, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        place = {"item_id": ident, "output_index": at, "content_index": 0}
        self("response.output_item.added", output_index=at, item=item)
        self("response.content_part.added", **place, part=part)
        for delta in deltas:
            self("response.output_text.delta", **place, delta=delta, logprobs=[])
        text = "".join(deltas)
        self("response.output_text.done", **place, text=text, logprobs=[])
        self("response.content_part.done", **place, part={**part, "text": text})
        return self("response.output_item.done", output_index=at, item=message(text, ident))


def begun():
    start = response(status="in_progress", usage=None)
    return Events()("response.created", response=start)("response.in_progress", response=start)


def follow(events, fails=False, **arguments):
    """The text that the SDK accumulates."""
    relay.replies(sse(*events.events), "text/event-stream; charset=utf-8")
    text = {}
    try:
        with client.responses.create(model=MODEL, input="Who am I?", stream=True, **arguments) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    text[event.item_id] = text.get(event.item_id, "") + event.delta
        assert not fails
    except openai.APIError:
        assert fails
    return "\n".join(text.values())


events = begun().message(0, "msg_1", "You are", " Ana", ".")("response.completed", response=response(message("You are Ana.")))
assert follow(events, previous_response_id="resp_0") == "You are Ana."
write("openai-responses", "stream", "Deltas, and at the end the whole response. Its predecessor was not seen, so the chain begins with it.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "You are Ana.", session="resp_0", agent=MODEL, **r_meta())))

events = (begun().message(0, "msg_1", "Let me", " look.")("response.output_item.added", output_index=1, item={**FUNCTION, "arguments": "", "status": "in_progress"})
          ("response.function_call_arguments.delta", item_id="fc_1", output_index=1, delta="{\"city\":")
          ("response.function_call_arguments.delta", item_id="fc_1", output_index=1, delta="\"Lisbon\"}")
          ("response.function_call_arguments.done", item_id="fc_1", output_index=1, name="weather", arguments=FUNCTION["arguments"])
          ("response.output_item.done", output_index=1, item=FUNCTION).message(2, "msg_2", "You are", " Ana."))
events("response.completed", response=response(message("Let me look."), FUNCTION, message("You are Ana.", "msg_2")))
assert follow(events) == "Let me look.\nYou are Ana."
write("openai-responses", "stream-messages", "Two messages and a tool call between them.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "Let me look.\nYou are Ana.", session="resp_1", agent=MODEL, **r_meta(tool_calls=[FUNCTION]))))

events = begun()("response.output_item.added", output_index=0, item={**REASONING, "summary": []})
for delta in ("They want", " a name."):
    events("response.reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=0, delta=delta)
events.message(1, "msg_1", "You are Ana.")("response.completed", response=response(REASONING, message("You are Ana.")))
assert follow(events) == "You are Ana."
write("openai-responses", "stream-reasoning", "A summary of the reasoning before the answer.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "You are Ana.", session="resp_1", agent=MODEL, **r_meta(reasoning="They want a name."))))

events = begun()("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta="You", logprobs=[])
events("response.failed", response=response(status="failed", usage=None, error={"code": "server_error", "message": "The model failed"}))
follow(events)
write("openai-responses", "stream-failed", "It fails in the middle.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", "You", session="resp_1", agent=MODEL, **r_meta(status="failed", usage=None), end="error")))

events = begun()("error", code="server_error", message="The model failed", param=None)
follow(events)
write("openai-responses", "stream-error", "The stream's own error.", FROM,
      exchange(relay.last(), RESPONSES, talk("Who am I?", None, session="resp_1", agent=MODEL, **r_meta(status="in_progress", usage=None), end="error")))
