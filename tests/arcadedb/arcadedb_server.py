"""The real ArcadeDB with its Bolt server, on a free port of 127.0.0.1, with some databases that are empty.

It cannot take port 0, so a port that was free a moment ago is taken. It ends with its parent: when standard input closes.
"""

import argparse
import os
import socket
import sys

import arcadedb_embedded as arcadedb

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--dir", required=True, help="where it works")
arguments.add_argument("--password", required=True, help="of the user root")
arguments.add_argument("--databases", nargs="+", required=True, help="their names")
options = arguments.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port = free_port()
# What it says of itself goes to standard output, which is for the port alone.
said = os.dup(1)
os.dup2(2, 1)
server = arcadedb.ArcadeDBServer(
    options.dir,
    root_password=options.password,
    config={
        "host": "127.0.0.1",
        "http_port": free_port(),
        "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
        "bolt_port": port,
    },
    jvm_kwargs={"heap_size": "512m"},
)
server.start()
for name in options.databases:
    server.create_database(name)
os.write(said, f"listening on {port}\n".encode())
while sys.stdin.buffer.read(4096):
    pass
os._exit(0)
