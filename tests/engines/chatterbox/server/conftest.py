"""Chatterbox over small weights, behind the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.serving import UNCOLLECTED, furnish, serving

collect_ignore_glob = UNCOLLECTED
# The models are shrunk by an adapter of their own. What oneDNN keeps for lengths it has seen is
# soon full, so that what grows is a leak.
ENTRY = f"""
    path: {Path(__file__).resolve().parents[1] / "tiny"}
    aliases: {{af_heart: default}}
    env: {{ONEDNN_PRIMITIVE_CACHE_CAPACITY: "16"}}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with backends.yaml, for commands as well."""
    chosen = {"script": "tiny_checkpoint.py", "options": "max_seconds: 2", "more": ENTRY}
    return furnish("chatterbox", tmp_path_factory.mktemp("server"), "turbo", **chosen)


@pytest.fixture(scope="session")
def server(folder):
    with serving("chatterbox", folder) as server:
        yield server
