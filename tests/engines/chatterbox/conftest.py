"""Fixtures of the Chatterbox suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import pytest

from tests.engines.environment import uncollected

collect_ignore_glob = ["tiny/*", *uncollected("chatterbox")]


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    from tests.recordings import record

    return record(tmp_path_factory.mktemp("recording") / "me.wav", 6.0, pitch=150)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders by kind. Turbo has a voice of its own, classic has none."""
    import tiny_checkpoint
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("chatterbox")
    return {kind: tiny_checkpoint.write(root / kind, kind) for kind in ("turbo", "classic")}


@pytest.fixture(scope="session")
def models(checkpoints):
    """The package's own models by kind: the reference."""
    import shrink  # noqa: F401
    from package import ChatterboxTTS, ChatterboxTurboTTS

    return {
        "turbo": ChatterboxTurboTTS.from_local(checkpoints["turbo"], "cpu"),
        "classic": ChatterboxTTS.from_local(checkpoints["classic"], "cpu"),
    }
