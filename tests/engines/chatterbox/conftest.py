"""Fixtures of the Chatterbox suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent

# The server's own environment has no torch, and never will: nothing here is for it.
IS_HERE = bool(find_spec("torch") and find_spec("chatterbox"))
collect_ignore_glob = ["tiny/*"] if IS_HERE else ["test_*.py", "tiny/*"]

for folder in (ROOT, ROOT / "backends" / "chatterbox", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
