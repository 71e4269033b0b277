"""The engine of the command line, which nobody else may ask again later."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from voice_server.cli.engine import engine
from voice_server.config import load_config
from voice_server.core.wire import Configure


def test_an_engine_is_waited_for_as_long_as_it_may_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may well load for longer than a server lets its clients wait."""
    monkeypatch.setattr("voice_server.speech.service.READY_TIMEOUT", 0.001)
    (tmp_path / "backends.yaml").write_text(
        f"default: tone\nbackends:\n  tone: {{python: {sys.executable}, load_timeout: 60}}\n"
    )
    config = load_config(backends_file=tmp_path / "backends.yaml", data_dir=tmp_path / "data")

    async def run() -> str:
        async with engine(config) as service:
            return (await service.route(Configure())).backend

    assert asyncio.run(run()) == "tone"
