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
def server(tmp_path_factory):
    """A server with vibevoice over a small checkpoint; warm."""
    from tests.end_to_end.conftest import running

    folder = tmp_path_factory.mktemp("server")
    checkpoint = folder / "checkpoint"
    builder = [PYTHON, HERE.parent / "checkpoint.py", checkpoint]
    subprocess.run(builder, check=True, capture_output=True)
    yaml = f"""
default: vibevoice
backends:
  vibevoice:
    python: {PYTHON}
    load_timeout: 240
    first_chunk_timeout: 120
    gap_timeout: 120
    options: {{model: {checkpoint}, device: cpu}}
    aliases: {{af_heart: default}}
"""
    with running(folder, "vibevoice", yaml=yaml) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def path(server):
    return f"{server.ws}/stream-tokens"
