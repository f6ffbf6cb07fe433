"""A deterministic stand-in for an OpenAI-compatible model: the same request always gets the same answer.

Structured requests (`/v1/responses` with `text.format`, `/v1/chat/completions` with `response_format`) are answered with the
smallest value that the schema in the request allows, so every list is empty: a graph service that asks for entities finds
none, and still goes its whole way. Embeddings are unit vectors made from the SHA-256 of the text. The model "echo" repeats what it is
told, streamed if that is asked for.

`POST /fail {"status": 429, "times": 1}` lets the next so many model calls fail with that status; the answer tells clients
not to retry by themselves, because the fault to be shown is what happens once they have given up.
"""

import base64
import hashlib
import json
import math
import re
import struct
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

import serving

DIMENSIONS = 1536
CREATED = 1_767_225_600

app = FastAPI()
failures: list[int] = []


def minimal(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The smallest value that a JSON schema allows."""
    if "$ref" in schema:
        node: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        return minimal(node, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in schema:
            kinds = schema[alternatives]
            return None if {"type": "null"} in kinds else minimal(kinds[0], root)
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            value = minimal(part, root)
            if not isinstance(value, dict):
                return value
            merged.update(value)
        return merged
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = "null" if "null" in kind else kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: minimal(properties.get(name, {}), root) for name in schema.get("required", [])}
    if kind == "array":
        return [minimal(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]
    if kind == "string":
        return "x" * schema.get("minLength", 0)
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}[kind]


def identity(prefix: str, body: Any) -> str:
    """An id made from the request."""
    text = json.dumps(body, sort_keys=True).encode()
    return prefix + hashlib.sha256(text).hexdigest()[:24]


def fault() -> JSONResponse | None:
    """The failure that was ordered, if one is due."""
    if not failures:
        return None
    status = failures.pop(0)
    error = {"message": f"ordered failure {status}", "type": "stub", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=status, headers={"x-should-retry": "false"})


@app.post("/fail")
async def fail(request: Request):
    body = await request.json()
    failures.extend([body["status"]] * body["times"])
    return {"ordered": len(failures)}


@app.post("/v1/responses")
async def responses(request: Request):
    if failed := fault():
        return failed
    body = await request.json()
    shape = (body.get("text") or {}).get("format") or {}
    text = json.dumps(minimal(shape["schema"], shape["schema"])) if shape.get("type") == "json_schema" else "{}"
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": identity("msg_", body), "status": "completed", "role": "assistant", "content": [content]}
    return {
        "id": identity("resp_", body),
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 2,
        },
    }


@app.post("/v1/chat/completions")
async def chat_completions(request: Request):
    if failed := fault():
        return failed
    body = await request.json()
    if body["model"] == "echo":
        return echo(body)
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_schema":
        schema = shape["json_schema"]["schema"]
        text = json.dumps(minimal(schema, schema))
    elif shape.get("type") == "json_object":
        text = "{}"
    else:
        text = "True"
    logprobs = None
    if body.get("logprobs"):
        first = {"token": text, "logprob": -0.1, "bytes": list(text.encode())}
        logprobs = {"content": [{**first, "top_logprobs": [first]}], "refusal": None}
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": identity("chatcmpl-", body),
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def echo(body: dict[str, Any]) -> Any:
    """The last message, as the model's own words."""
    text = f"You said: {body['messages'][-1]['content']}"
    whole = {"id": identity("chatcmpl-", body), "created": CREATED, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**whole, "object": "chat.completion", "choices": [choice]}

    def events():
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in re.findall(r"\s*\S+", text)), {}]
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop", "logprobs": None}
            yield f"data: {json.dumps({**whole, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def embedding(value: Any, dimensions: int) -> list[float]:
    """A unit vector: the same text, the same direction; another text, nearly at a right angle."""
    seed = json.dumps(value).encode()
    blocks = (hashlib.sha256(seed + struct.pack(">I", i)).digest() for i in range(math.ceil(dimensions / 32)))
    numbers = [byte / 127.5 - 1.0 for block in blocks for byte in block][:dimensions]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


@app.post("/v1/embeddings")
async def embeddings(request: Request):
    if failed := fault():
        return failed
    body = await request.json()
    inputs = body["input"]
    if not isinstance(inputs, list) or (inputs and isinstance(inputs[0], int)):
        inputs = [inputs]
    data = []
    for index, value in enumerate(inputs):
        vector: Any = embedding(value, body.get("dimensions") or DIMENSIONS)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


serving.serve(app)
