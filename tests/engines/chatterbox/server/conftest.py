"""The engine behind the real server. Runs in the server's environment, with the engine's beside it.

``tests/engines/run`` names the engine's interpreter in ENGINE_PYTHON; without it there is nothing
to test here, and nothing is collected.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("ENGINE_PYTHON")
collect_ignore_glob = [] if PYTHON else ["test_*.py"]
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with backends.yaml, whose only backend is chatterbox over small weights."""
    folder = tmp_path_factory.mktemp("server")
    checkpoint = folder / "checkpoint"
    builder = [PYTHON, HERE.parent / "tiny_checkpoint.py", checkpoint, "turbo"]
    subprocess.run(builder, check=True, capture_output=True)
    (folder / "backends.yaml").write_text(
        f"""
default: chatterbox
backends:
  chatterbox:
    path: {HERE.parent / "tiny"}
    python: {PYTHON}
    aliases: {{af_heart: default}}
    load_timeout: 240
    first_chunk_timeout: 120
    gap_timeout: 120
    options: {{model: {checkpoint}, max_seconds: 2}}
    # What oneDNN keeps for lengths it has seen is soon full, so that what grows is a leak.
    env: {{ONEDNN_PRIMITIVE_CACHE_CAPACITY: "16"}}
"""
    )
    return folder


@pytest.fixture(scope="session")
def server(folder):
    from tests.end_to_end.conftest import running

    with running(folder, "chatterbox", yaml=(folder / "backends.yaml").read_text()) as server:
        server.wait_ready()
        yield server
