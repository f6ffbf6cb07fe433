"""A small REST service on the real graphiti-core and the real FalkorDB, with the routes of Graphiti's own service and its
weakness: one queue in memory and one worker for all groups, which ends with the first exception, after which every message is
still accepted and none is stored.

The model is taken from OPENAI_BASE_URL and OPENAI_API_KEY, as graphiti-core does. On FalkorDB graphiti-core keeps each group in a
graph of the group's name; writing and reading both go through it, so they agree.
"""

import argparse
import asyncio
import contextlib
import logging
import time
from datetime import datetime, timezone
from typing import Literal

from fastapi import FastAPI, status
from graphiti_core import Graphiti
from graphiti_core.driver.falkordb_driver import FalkorDriver
from graphiti_core.nodes import EpisodeType
from pydantic import BaseModel, Field

import serving

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--falkordb-port", type=int, required=True)
arguments.add_argument("--port", type=int, default=0, help="0 takes a free one; a given one is for a restart")
options = arguments.parse_args()

log = logging.getLogger("graphiti_service")

# Made here and not in the running loop: there the driver begins to build the indices by itself, beside those who ask for them, and
# FalkorDB has been seen to hang over the two.
driver = FalkorDriver(host="127.0.0.1", port=options.falkordb_port)


def now() -> datetime:
    return datetime.now(timezone.utc)


class Message(BaseModel):
    content: str
    uuid: str | None = None
    name: str = ""
    role_type: Literal["user", "assistant", "system"]
    role: str | None  # may be null, may not be absent
    timestamp: datetime = Field(default_factory=now)
    source_description: str = ""


class Messages(BaseModel):
    group_id: str
    messages: list[Message]


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.graphiti = Graphiti(graph_driver=driver)
    await app.state.graphiti.build_indices_and_constraints()
    app.state.queue = asyncio.Queue()
    worker = asyncio.create_task(work(app.state.queue, app.state.graphiti))
    yield
    # What is still queued is lost here, as it is in the original.
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    await app.state.graphiti.close()


async def work(queue: asyncio.Queue, graphiti: Graphiti) -> None:
    """The one worker. Nothing is caught: whatever goes wrong with one message ends the work on all of them."""
    while True:
        group_id, message = await queue.get()
        began = time.monotonic()
        try:
            await graphiti.add_episode(
                name=message.name,
                episode_body=f"{message.role or ''}({message.role_type}): {message.content}",
                source_description=message.source_description,
                reference_time=message.timestamp,
                source=EpisodeType.message,
                group_id=group_id,
                uuid=message.uuid,
            )
        except Exception:
            log.exception("the worker dies of %s in group %s", message.name, group_id)
            raise
        log.info("stored %s in group %s after %.0f ms", message.name, group_id, (time.monotonic() - began) * 1000)


app = FastAPI(lifespan=lifespan)


@app.post("/messages", status_code=status.HTTP_202_ACCEPTED)
async def add_messages(request: Messages):
    log.info("accepted %d messages of group %s", len(request.messages), request.group_id)
    for message in request.messages:
        await app.state.queue.put((request.group_id, message))
    return {"message": "Messages added to processing queue", "success": True}


@app.get("/episodes/{group_id}")
async def episodes(group_id: str, last_n: int):
    return await app.state.graphiti.retrieve_episodes(reference_time=now(), last_n=last_n, group_ids=[group_id])


@app.get("/healthcheck")
async def healthcheck():
    return {"status": "healthy"}


serving.serve(app, options.port)
