"""Fixtures of the VibeVoice suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import pytest

from tests.engines.environment import uncollected

collect_ignore_glob = uncollected("diffusers")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    import checkpoint

    return checkpoint.write(tmp_path_factory.mktemp("vibevoice"))


@pytest.fixture(scope="session")
def model(folder):
    import torch
    from model import load

    torch.set_num_threads(1)
    return load(str(folder), torch.device("cpu"))


@pytest.fixture
def recording(tmp_path):
    from tests.recordings import record

    return record(tmp_path / "me.wav")
