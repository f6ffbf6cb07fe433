"""anthropic-messages: requests by the SDK's client; answers of the SDK's types, which its client has to understand."""

import anthropic
from anthropic.types import Message

from golden import Relay, exchange, sse, talk, write

FROM = f"anthropic {anthropic.__version__} (Python): request by its client, response of its types and read by its client"
DOC = f"anthropic {anthropic.__version__} (Python): request by its client; response hand-made after "
PATH, MODEL = "/v1/messages", "claude-opus-5-5"
relay = Relay()
client = anthropic.Anthropic(base_url=relay.url, api_key="none", max_retries=0)
ASK = [{"role": "user", "content": "Who am I?"}]
USAGE = {"input_tokens": 9, "output_tokens": 4}
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lisbon"}}


def whole(*content, stop="end_turn"):
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": list(content), "stop_reason": stop,
            "stop_sequence": None, "usage": USAGE}
    Message.model_validate(body)
    return body


def meta(stop="end_turn", usage=USAGE, **more):
    return {k: v for k, v in {"response_id": "msg_1", "model": MODEL, "finish_reason": stop, "usage": usage, **more}.items() if v}


def ask(body, **arguments):
    relay.replies(body)
    return client.messages.create(**{"model": MODEL, "max_tokens": 100, "messages": ASK, **arguments})


assert ask(whole({"type": "text", "text": "You are Ana."}), metadata={"user_id": "ana"}).content[0].text == "You are Ana."
write("anthropic-messages", "plain", "A question and its answer; the metadata names the user.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", user="ana", agent=MODEL, **meta())))

ask(whole({"type": "thinking", "thinking": "They want a name.", "signature": "c2ln"}, {"type": "text", "text": "Let me look."}, TOOL, {"type": "text", "text": "One moment."},
          stop="tool_use"), messages=[
    {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": [{"type": "text", "text": "Who am I?"}, {"type": "text", "text": "Tell me."}]}], extra_headers={"x-session-id": "s-1"})
write("anthropic-messages", "plain-blocks", "Text blocks in question and answer, with thinking and a tool call between them.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?\nTell me.", "Let me look.\nOne moment.", session="s-1", agent=MODEL,
                                        **meta("tool_use", reasoning="They want a name.", tool_calls=TOOL))))

ask(whole(TOOL, stop="tool_use"))
write("anthropic-messages", "plain-tool-call-only", "The model calls a tool and says nothing.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", None, agent=MODEL, **meta("tool_use", tool_calls=TOOL))))

ask(whole({"type": "text", "text": "It is sunny."}), messages=ASK + [
    {"role": "assistant", "content": [TOOL]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny, 30 degrees"}]}]}])
write("anthropic-messages", "plain-tool-result", "The last user message is what a tool gave back: no text of a user's.", FROM,
      exchange(relay.last(), PATH, talk(None, "It is sunny.", agent=MODEL, **meta())))

relay.replies({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, status=529)
try:
    client.messages.create(model=MODEL, max_tokens=100, messages=ASK)
    raise AssertionError
except anthropic.APIStatusError:
    pass
write("anthropic-messages", "plain-529", "Overloaded: no episode.", FROM, exchange(relay.last(), PATH, None))
relay.replies({"type": "error", "error": {"type": "api_error", "message": "Internal"}})
client.messages.with_raw_response.create(model=MODEL, max_tokens=100, messages=ASK)
write("anthropic-messages", "plain-error-in-200", "An error under a status of success, as a gateway may make it: no episode.", DOC + "the API's errors",
      exchange(relay.last(), PATH, None))

START = {"type": "message_start", "message": {**whole(stop=None), "usage": {"input_tokens": 9, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def block(index, start, *deltas):
    return [{"type": "content_block_start", "index": index, "content_block": start},
            *[{"type": "content_block_delta", "index": index, "delta": d} for d in deltas], {"type": "content_block_stop", "index": index}]


def text(index, *deltas):
    return block(index, {"type": "text", "text": ""}, *[{"type": "text_delta", "text": d} for d in deltas])


def delta(stop="end_turn", usage=USAGE):
    return {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}


def follow(body, fails=False, **arguments):
    """The text that the SDK accumulates."""
    relay.replies(body, "text/event-stream; charset=utf-8")
    found = []
    try:
        with client.messages.stream(**{"model": MODEL, "max_tokens": 100, "messages": ASK, **arguments}) as stream:
            for _ in stream:
                found = [b.text for b in stream.current_message_snapshot.content if b.type == "text"]
        assert not fails
    except anthropic.APIStatusError:
        assert fails
    return "\n".join(found)


PING = {"type": "ping"}
assert follow(sse(START, *text(0, "You are", " Ana", ". 👋")[:2], PING, *text(0, "You are", " Ana", ". 👋")[2:], delta(), STOP), metadata={"user_id": "ana"}) == "You are Ana. 👋"
write("anthropic-messages", "stream", "Deltas, with a ping among them.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana. 👋", user="ana", agent=MODEL, **meta(usage_at_start={"input_tokens": 9, "output_tokens": 1}))))
AT_START = {"usage_at_start": {"input_tokens": 9, "output_tokens": 1}}

thought = block(0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "They want"},
                {"type": "thinking_delta", "thinking": " a name."}, {"type": "signature_delta", "signature": "c2ln"})
called = block(2, {**TOOL, "input": {}}, {"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": "{\"city\":"},
               {"type": "input_json_delta", "partial_json": "\"Lisbon\"}"})
assert follow(sse(START, *thought, *text(1, "Let me", " look."), *called, *text(3, "One moment."), delta("tool_use"), STOP)) == "Let me look.\nOne moment."
write("anthropic-messages", "stream-blocks", "Thinking, two text blocks, and a tool call between them.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "Let me look.\nOne moment.", agent=MODEL, **meta(
          "tool_use", reasoning="They want a name.", tool_calls=[{**TOOL, "input": {}}], tool_input="{\"city\":\"Lisbon\"}", **AT_START))))

called = block(0, {**TOOL, "input": {}}, {"type": "input_json_delta", "partial_json": "{\"city\":\"Lisbon\"}"})
assert follow(sse(START, *called, delta("tool_use"), STOP)) == ""
write("anthropic-messages", "stream-tool-call-only", "The model calls a tool and says nothing.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", None, agent=MODEL, **meta("tool_use", tool_calls=[{**TOOL, "input": {}}], tool_input="{\"city\":\"Lisbon\"}", **AT_START))))

cited = block(0, {"type": "text", "text": "Well: "}, {"type": "text_delta", "text": "you are Ana."},
              {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "Ana", "document_index": 0, "document_title": None,
                                                        "start_char_index": 0, "end_char_index": 3, "file_id": None}})
assert follow(sse(START, *cited, delta(), STOP)) == "Well: you are Ana."
write("anthropic-messages", "stream-citation", "A text block that begins with a text, and a citation in it.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "Well: you are Ana.", agent=MODEL, **meta(**AT_START))))

assert follow(sse(START, *text(0, "You are")[:2], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), fails=True) == "You are"
write("anthropic-messages", "stream-error", "It fails in the middle; HTTP stays 200.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are", agent=MODEL,
                                        **meta(None, {"input_tokens": 9, "output_tokens": 1}, **AT_START), end="error")))

assert follow(sse(START, *text(0, "You are", " Ana."), delta(), STOP, end="\r\n")) == "You are Ana."
write("anthropic-messages", "stream-crlf", "Lines end as in HTTP.", FROM,
      exchange(relay.last(), PATH, talk("Who am I?", "You are Ana.", agent=MODEL, **meta(**AT_START))))

cut = sse(START, *text(0, "You are", " Ana."))[:-90]
write("anthropic-messages", "stream-broken-off", "The upstream breaks off.", FROM + ", cut short",
      exchange({**relay.last(), "response": {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": cut}}, PATH,
               talk("Who am I?", "You are", agent=MODEL, **meta(None, {"input_tokens": 9, "output_tokens": 1}, **AT_START), end="error"), ending="error"))
