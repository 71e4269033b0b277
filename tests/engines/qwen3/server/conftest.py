"""Qwen3-TTS over a tiny checkpoint, behind the real server."""

from __future__ import annotations

import pytest

from tests.engines.serving import UNCOLLECTED, furnish, serving

collect_ignore_glob = UNCOLLECTED


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    options = "device: cpu, slots: 3, frames_per_token: 2.0"
    furnish("qwen3", folder, "custom_voice", options=options)
    with serving("qwen3", folder) as server:
        yield server


@pytest.fixture
def path(server):
    return f"{server.ws}/stream-tokens"
