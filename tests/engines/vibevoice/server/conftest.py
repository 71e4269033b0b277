"""VibeVoice over a small checkpoint, behind the real server."""

from __future__ import annotations

import pytest

from tests.engines.serving import UNCOLLECTED, furnish, serving

collect_ignore_glob = UNCOLLECTED


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    furnish("vibevoice", folder, options="device: cpu", more="aliases: {af_heart: default}")
    with serving("vibevoice", folder) as server:
        yield server
