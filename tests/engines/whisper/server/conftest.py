"""Whisper in its own environment, over a tiny model; the tests run in the server's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import Server, serving
from tests.engines.serving import PYTHON, UNCOLLECTED
from tests.integration import raw_worker
from tests.integration.raw_worker import RawWorker

collect_ignore_glob = UNCOLLECTED
HERE = Path(__file__).resolve().parent
TEXT = "The quick brown fox jumps over the lazy dog. It was a bright cold day in April."

# Importing onnxruntime on a busy machine takes its time.
raw_worker.PATIENCE = 120.0


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([PYTHON, HERE.parent / "tiny_model.py", folder], check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    """eSpeak NG, which makes the speech, and tone, which clones; whisper beside them."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "backends.yaml").write_text(
        f"""
default: tone
backends:
  tone: {{python: {sys.executable}}}
  espeak: {{python: {sys.executable}, voice: en-us}}
  whisper:
    python: {PYTHON}
    load_timeout: 240
    options: {{model: {model}, device: cpu, max_new_tokens: 20}}
"""
    )
    with serving(folder, "--backend", "espeak") as server:
        yield server


@pytest.fixture(scope="session")
def speech(server: Server) -> bytes:
    """A WAV in which somebody really speaks."""
    return server.sound("/tts", {"text": TEXT, "backend": "espeak"})


@pytest.fixture(scope="session")
def worker(model: Path) -> Iterator[RawWorker]:
    options = {"model": str(model), "device": "cpu", "max_new_tokens": 20}
    with RawWorker("whisper", options, python=PYTHON) as running:
        yield running
