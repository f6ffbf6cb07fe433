"""Sends exchanges to an agent API as its users would: sessions at the same time, the exchanges of one session one after
another. Prints what came of each as one JSON object.
"""

import argparse
import asyncio
import json
import sys
import time

import httpx

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--url", required=True, help="base URL of the agent, or of what stands before it")
arguments.add_argument("--exchanges", type=int, required=True, help="in each session")
arguments.add_argument("--session", action="append", required=True, help="once for each session")
arguments.add_argument("--agent", default="helper")
options = arguments.parse_args()


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


async def exchange(client: httpx.AsyncClient, session: str, n: int) -> dict:
    content = f"message {n} of {session}"
    body = {"message_content": content, "message_type": "text", "session_id": session, "user_id": "tester"}
    result = {"session": session, "n": n, "content": content, "sent_at_ms": milliseconds(), "status": 0, "reply": None, "error": None}
    began = time.perf_counter()
    try:
        response = await client.post(f"/api/v1/agent/{options.agent}/run", json=body)
        result["status"] = response.status_code
        result["reply"] = response.json().get("message")
    except (httpx.HTTPError, ValueError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
    result["latency_ms"] = round((time.perf_counter() - began) * 1000, 3)
    result["answered_at_ms"] = milliseconds()
    return result


async def conversation(client: httpx.AsyncClient, session: str) -> list[dict]:
    return [await exchange(client, session, n) for n in range(options.exchanges)]


async def main() -> None:
    async with httpx.AsyncClient(base_url=options.url, timeout=60.0, trust_env=False) as client:
        conversations = await asyncio.gather(*(conversation(client, session) for session in options.session))
    json.dump({"exchanges": [result for results in conversations for result in results]}, sys.stdout)


asyncio.run(main())
