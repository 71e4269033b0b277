"""Fixtures of the Pocket TTS suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent

# The server's own environment has no torch, and never will: nothing here is for it.
collect_ignore_glob = [] if find_spec("torch") and find_spec("pocket_tts") else ["test_*.py"]

for folder in (ROOT, ROOT / "backends" / "pocket_tts", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
