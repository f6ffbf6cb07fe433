"""Asks through a proxy, with the vendors' own clients, for golden exchanges; prints what each client made of the answer, as JSON.

Each exchange's session is named after it, in the place where its API has one.
"""

import argparse
import asyncio
import json

import anthropic
import httpx
import ollama
import openai
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import get_artifact_text, get_message_text
from a2a.types import a2a_pb2 as pb
from langgraph_sdk import get_client

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--url", required=True)
url = arguments.parse_args().url

heard = []
ASK = "Who am I?"
MESSAGES = [{"role": "user", "content": ASK}]


def session(case):
    return case.replace("/", ".")


def headers(case):
    return {"x-golden": case, "x-session-id": session(case)}


def hear(case, text):
    heard.append({"case": case, "session": session(case), "text": text or ""})


def openai_chat():
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    for name in ("plain", "plain-tool-call-only"):
        case = f"openai-chat/{name}"
        answer = client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=headers(case))
        hear(case, answer.choices[0].message.content)
    for name in ("stream", "stream-usage", "stream-crlf", "stream-cr", "stream-comments", "stream-without-marker", "stream-reasoning",
                 "stream-tool-call-only", "stream-two-choices"):
        case = f"openai-chat/{name}"
        with client.chat.completions.stream(model="m", messages=MESSAGES, extra_headers=headers(case)) as stream:
            stream.until_done()
            hear(case, stream.current_completion_snapshot.choices[0].message.content)


def openai_responses():
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    case = "openai-responses/plain-incomplete"
    hear(case, client.responses.create(model="m", input=ASK, extra_headers=headers(case)).output_text)
    for name in ("stream", "stream-reasoning"):
        case = f"openai-responses/{name}"
        with client.responses.stream(model="m", input=ASK, extra_headers=headers(case)) as stream:
            stream.until_done()
            hear(case, stream.get_final_response().output_text)


def anthropic_messages():
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    texts = lambda message: "\n".join(block.text for block in message.content if block.type == "text")
    ask = {"model": "m", "max_tokens": 100, "messages": MESSAGES}
    for name in ("plain", "plain-blocks", "plain-tool-call-only"):
        case = f"anthropic-messages/{name}"
        hear(case, texts(client.messages.create(**ask, extra_headers=headers(case))))
    for name in ("stream", "stream-blocks", "stream-citation", "stream-crlf", "stream-tool-call-only"):
        case = f"anthropic-messages/{name}"
        with client.messages.stream(**ask, extra_headers=headers(case)) as stream:
            hear(case, texts(stream.get_final_message()))


def ollama_chat():
    for name in ("plain", "plain-tool-call-only"):
        case = f"ollama-chat/{name}"
        hear(case, ollama.Client(url, headers=headers(case)).chat("m", MESSAGES).message.content)
    for name in ("stream", "stream-thinking", "stream-crlf", "stream-last-line-open", "stream-tool-call-only", "stream-as-json"):
        case = f"ollama-chat/{name}"
        parts = ollama.Client(url, headers=headers(case)).chat("m", MESSAGES, stream=True)
        hear(case, "".join(part.message.content or "" for part in parts))


async def a2a():
    def card(binding, version):
        interface = pb.AgentInterface(url=url + ("/" if binding == "JSONRPC" else ""), protocol_binding=binding, protocol_version=version)
        return pb.AgentCard(name="a", capabilities=pb.AgentCapabilities(streaming=True), supported_interfaces=[interface])

    for name, binding, version in (
        ("1.0-rpc-message", "JSONRPC", "1.0"), ("1.0-rpc-task", "JSONRPC", "1.0"), ("1.0-rpc-task-question", "JSONRPC", "1.0"),
        ("1.0-rpc-stream", "JSONRPC", "1.0"), ("1.0-rpc-stream-message", "JSONRPC", "1.0"), ("1.0-rpc-stream-question", "JSONRPC", "1.0"),
        ("1.0-rest-message", "HTTP+JSON", "1.0"), ("1.0-rest-task", "HTTP+JSON", "1.0"), ("1.0-rest-stream", "HTTP+JSON", "1.0"),
        ("0.3-rpc-message", "JSONRPC", "0.3"), ("0.3-rpc-task", "JSONRPC", "0.3"), ("0.3-rpc-stream", "JSONRPC", "0.3"),
    ):
        case = f"a2a/{name}"
        http = httpx.AsyncClient(headers=headers(case), timeout=30)
        config = ClientConfig(streaming="stream" in name, httpx_client=http, supported_protocol_bindings=[binding])
        message = pb.Message(role=pb.ROLE_USER, message_id="m-1", context_id=session(case), parts=[pb.Part(text=ASK)])
        said, artifacts, rest = "", {}, ""
        async for event in ClientFactory(config).create(card(binding, version)).send_message(pb.SendMessageRequest(message=message)):
            kind = event.WhichOneof("payload")
            if kind == "message":
                said = get_message_text(event.message)
            elif kind == "task":
                artifacts |= {artifact.artifact_id: get_artifact_text(artifact) for artifact in event.task.artifacts}
                rest = get_message_text(event.task.status.message)
            elif kind == "status_update":
                rest = get_message_text(event.status_update.status.message)
            else:
                update = event.artifact_update
                before = artifacts.get(update.artifact.artifact_id, "") if update.append else ""
                artifacts[update.artifact.artifact_id] = before + get_artifact_text(update.artifact)
        hear(case, said or "\n".join(artifacts.values()) or rest)


async def langgraph():
    for name in ("wait", "wait-keepalive", "wait-second", "stream-messages-tuple", "stream-heartbeat", "stream-values", "stream-messages"):
        case = f"langgraph/{name}"
        client = get_client(url=url, headers={"x-golden": case})
        ask = {"input": {"messages": MESSAGES}}
        if name.startswith("wait"):
            state = await client.runs.wait(session(case), "agent", **ask)
            hear(case, state["messages"][-1]["content"])
            continue
        texts = {}
        async for part in client.runs.stream(session(case), "agent", stream_mode="messages-tuple", **ask):
            if part.event == "messages":
                chunk = part.data[0]
                if chunk["type"] == "AIMessageChunk":
                    texts[chunk["id"]] = texts.get(chunk["id"], "") + chunk["content"]
            elif part.event == "messages/partial":
                texts[part.data[0]["id"]] = part.data[0]["content"]
            elif part.event == "values":
                last = part.data["messages"][-1]
                texts = {"last": last["content"]} if last["type"] == "ai" else texts
        hear(case, "\n".join(texts.values()))


openai_chat()
openai_responses()
anthropic_messages()
ollama_chat()
asyncio.run(a2a())
asyncio.run(langgraph())
print(json.dumps({"heard": heard}))
