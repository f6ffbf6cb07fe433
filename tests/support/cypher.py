"""Runs Cypher with the vendors' own clients: each line of standard input is a statement with its parameters, in JSON, and each line of
the output its rows."""

import argparse
import json
import sys

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--bolt", action="store_true", help="Bolt instead of FalkorDB's")
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--password", required=True)
arguments.add_argument("--graph", required=True, help="the graph or the database")
options = arguments.parse_args()

if options.bolt:
    import neo4j

    driver = neo4j.GraphDatabase.driver(f"bolt://127.0.0.1:{options.port}", auth=("root", options.password))
    session = driver.session(database=options.graph)

    def run(statement, parameters):
        return session.run(statement, parameters).values()

else:
    import falkordb

    graph = falkordb.FalkorDB(host="127.0.0.1", port=options.port, password=options.password).select_graph(options.graph)

    def run(statement, parameters):
        return graph.query(statement, parameters).result_set


for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps(run(question["statement"], question.get("parameters", {}))))
