"""LightRAG's own server, on a port of its own, with everything that it keeps in one directory.

Its model and its embedding are OpenAI-compatible services on this machine. One thing in it is not its own: tokens are bytes, because
the tables of tiktoken's encodings would have to be fetched.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import tiktoken  # noqa: E402

import serving  # noqa: E402

BYTES = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={})
tiktoken.get_encoding = lambda _name: BYTES
tiktoken.encoding_for_model = lambda _model: BYTES

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--dir", required=True)
parser.add_argument("--port", type=int, default=0)
arguments = parser.parse_args()

os.environ.update(
    LLM_BINDING="openai",
    LLM_BINDING_HOST=f"{arguments.model}/v1",
    LLM_BINDING_API_KEY="none",
    LLM_MODEL="stub",
    EMBEDDING_BINDING="openai",
    EMBEDDING_BINDING_HOST=f"{arguments.model}/v1",
    EMBEDDING_BINDING_API_KEY="none",
    EMBEDDING_MODEL="text-embedding-3-small",
    EMBEDDING_DIM="1536",
    LIGHTRAG_API_KEY="lightrag-s3cret",
    ENABLE_LLM_CACHE_FOR_EXTRACT="false",
)
sys.argv = ["lightrag-server", "--working-dir", f"{arguments.dir}/rag", "--input-dir", f"{arguments.dir}/inputs"]

from lightrag.api.config import global_args, initialize_config  # noqa: E402

initialize_config()

from lightrag.api.lightrag_server import create_app  # noqa: E402

serving.serve(create_app(global_args), arguments.port)
