"""An agent service in the automagik shape: FastAPI on uvicorn, `POST /api/v1/agent/{name}/run`.

`--delay` is how long it thinks, in seconds. The answer repeats the question, so that a reader of the graph can tell which
answer belongs to which question.
"""

import argparse
import asyncio
import uuid

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import serving

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--delay", type=float, default=0.0)
options = arguments.parse_args()

app = FastAPI()


class Run(BaseModel):
    message_content: str
    message_type: str = "text"
    session_id: str | None = None
    session_name: str | None = None
    session_origin: str | None = None
    user_id: str | None = None
    message_limit: int | None = None


@app.post("/api/v1/agent/{name}/run")
async def run(name: str, request: Run):
    if name == "unknown":
        raise HTTPException(status_code=404, detail=f"Agent not found: {name}")
    await asyncio.sleep(options.delay)
    session = request.session_id or str(uuid.uuid5(uuid.NAMESPACE_URL, request.session_name or ""))
    return {
        "message": f"You said: {request.message_content}",
        "session_id": session,
        "success": True,
        "tool_calls": [],
        "tool_outputs": [],
        "user_id": request.user_id,
        "usage": {"request_tokens": len(request.message_content), "response_tokens": len(request.message_content) + 10},
    }


@app.get("/health")
async def health():
    return {"status": "healthy"}


serving.serve(app)
