"""Fixtures of the Pocket TTS suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import pytest

from tests.engines.environment import uncollected

collect_ignore_glob = uncollected("pocket_tts")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tiny English and German models, as they lie in the hub's repository."""
    import checkpoint

    made = tmp_path_factory.mktemp("pocket_tts")
    checkpoint.write(made, "english")
    return checkpoint.write(made, "german")


@pytest.fixture(scope="session")
def english(folder):
    from languages import Language
    from options import Options

    return Language.load("english", Options(model=folder))


@pytest.fixture
def recording(tmp_path):
    from tests.recordings import record

    return record(tmp_path / "me.wav")
