"""Reads every Episodic node of every graph of a FalkorDB by Cypher, and prints them as JSON in the order of their event time."""

import argparse
import json
import sys

from falkordb import FalkorDB

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--falkordb-port", type=int, required=True)
options = arguments.parse_args()

QUERY = """
MATCH (e:Episodic)
RETURN e.name, e.group_id, e.valid_at, e.created_at, e.content, e.source, e.source_description
ORDER BY e.valid_at
"""

database = FalkorDB(host="127.0.0.1", port=options.falkordb_port)
episodes = []
for graph in database.list_graphs():
    for row in database.select_graph(graph).ro_query(QUERY).result_set:
        name, group_id, valid_at, created_at, content, source, source_description = row
        episodes.append(
            {
                "graph": graph,
                "name": name,
                "group_id": group_id,
                "valid_at": valid_at,
                "created_at": created_at,
                "content": content,
                "source": source,
                "source_description": source_description,
            }
        )
json.dump({"episodes": episodes}, sys.stdout)
