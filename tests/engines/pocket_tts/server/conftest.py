"""Pocket TTS over tiny checkpoints in two languages, behind the real server."""

from __future__ import annotations

import pytest

from tests.engines.serving import UNCOLLECTED, furnish, serving

collect_ignore_glob = UNCOLLECTED


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    chosen = {"options": "languages: [en, de]", "more": "aliases: {af_heart: alba}"}
    furnish("pocket_tts", folder, "english", "german", **chosen)
    with serving("pocket_tts", folder) as server:
        yield server
