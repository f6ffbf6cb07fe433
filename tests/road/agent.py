"""An agent with the API of OpenAI's chat completions, streamed or not, that asks its own model with OpenAI's SDK."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from fastapi import FastAPI  # noqa: E402
from fastapi.responses import StreamingResponse  # noqa: E402
from openai import AsyncOpenAI  # noqa: E402
from pydantic import BaseModel  # noqa: E402

import serving  # noqa: E402

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--model", required=True, help="base URL of the model's API")
options = arguments.parse_args()

app = FastAPI()
model = AsyncOpenAI(base_url=f"{options.model}/v1", api_key="none")

SYSTEM = {"role": "system", "content": "You are a parrot."}


class Message(BaseModel):
    role: str
    content: str


class Request(BaseModel):
    model: str
    messages: list[Message]
    stream: bool = False


@app.post("/v1/chat/completions")
async def chat(request: Request):
    messages = [SYSTEM, *(message.model_dump() for message in request.messages)]
    if not request.stream:
        return await model.chat.completions.create(model="echo", messages=messages)

    async def events():
        async for chunk in await model.chat.completions.create(model="echo", messages=messages, stream=True):
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


serving.serve(app)
