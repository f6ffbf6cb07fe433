"""A small MCP server on the real graphiti-core and the real FalkorDB, with the tools of Graphiti's own that a writer needs, and its
weakness: a queue in memory for each group, and a worker for each that forgets what it failed on.

As there, get_episodes reads from the graph that the driver was made for, and not from the group's: on FalkorDB it sees that one alone.
With --by-group it reads where add_memory writes, and passes itself off as on Neo4j, where Graphiti's server does.
"""

import argparse
import asyncio
import contextlib
import logging
from datetime import datetime

from graphiti_core import Graphiti
from graphiti_core.driver.falkordb_driver import FalkorDriver
from graphiti_core.nodes import EpisodeType, EpisodicNode
from mcp.server.fastmcp import FastMCP
from typing_extensions import TypedDict

import serving

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--falkordb-port", type=int, required=True)
arguments.add_argument("--port", type=int, default=0, help="0 takes a free one; a given one is for a restart")
arguments.add_argument("--by-group", action="store_true")
arguments.add_argument("--json", action="store_true", help="answer in JSON; else in streams of events")
options = arguments.parse_args()

log = logging.getLogger("graphiti_mcp_server")

# Made outside the running loop, for the reason that graphiti_service.py gives.
driver = FalkorDriver(host="127.0.0.1", port=options.falkordb_port)
mcp = FastMCP("graphiti", json_response=options.json)
queues: dict[str, asyncio.Queue] = {}
workers: list[asyncio.Task] = []


class Done(TypedDict):
    message: str


class Episodes(TypedDict):
    message: str
    episodes: list[dict]


class Failure(TypedDict):
    error: str


async def work(group_id: str, graphiti: Graphiti) -> None:
    while True:
        episode = await queues[group_id].get()
        try:
            await graphiti.add_episode(group_id=group_id, **episode)
        except Exception:
            log.exception("%s of group %s is forgotten", episode["name"], group_id)
        else:
            log.info("stored %s in group %s", episode["name"], group_id)


@mcp.tool()
async def add_memory(
    name: str,
    episode_body: str,
    group_id: str | None = None,
    source: str = "text",
    source_description: str = "",
    uuid: str | None = None,
    reference_time: str | None = None,
) -> Done | Failure:
    try:
        time = datetime.fromisoformat(reference_time or "")
    except ValueError as error:
        return Failure(error=f"Invalid reference_time: {error}")
    group = group_id or "main"
    if group not in queues:
        queues[group] = asyncio.Queue()
        workers.append(asyncio.create_task(work(group, app.state.graphiti)))
    log.info("accepted %s for group %s", name, group)
    await queues[group].put(
        {
            "name": name,
            "episode_body": episode_body,
            "source": EpisodeType[source],
            "source_description": source_description,
            "uuid": uuid,
            "reference_time": time,
        }
    )
    return Done(message=f"Episode '{name}' queued for processing in group '{group}'")


@mcp.tool()
async def get_episodes(group_ids: str | list[str] | None = None, max_episodes: int = 10) -> Episodes | Failure:
    groups = [group_ids] if isinstance(group_ids, str) else group_ids or ["main"]
    source = driver.clone(database=groups[0]) if options.by_group else driver
    found = await EpisodicNode.get_by_group_ids(source, groups, limit=max_episodes)
    episodes = [{"uuid": e.uuid, "name": e.name, "content": e.content, "group_id": e.group_id} for e in found]
    return Episodes(message="Episodes retrieved successfully" if episodes else "No episodes found", episodes=episodes)


@mcp.tool()
async def get_status() -> Done:
    database = "neo4j" if options.by_group else "falkordb"
    return Done(message=f"Graphiti MCP server is running and connected to {database} database")


@contextlib.asynccontextmanager
async def lifespan(_app):
    app.state.graphiti = Graphiti(graph_driver=driver)
    await app.state.graphiti.build_indices_and_constraints()
    async with mcp.session_manager.run():
        yield
    for worker in workers:
        worker.cancel()
    await app.state.graphiti.close()


app = mcp.streamable_http_app()
app.router.lifespan_context = lifespan
serving.serve(app, options.port)
