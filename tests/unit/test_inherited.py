"""Variables that other documents name, beside ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from voice_server.config import load_config
from voice_server.config.inherited import inherited


def test_nothing_set_asks_for_nothing() -> None:
    found = inherited({"PATH": "/bin", "LOG_LEVEL": " "})
    assert (found.settings, found.backend, found.qwen_options, found.warnings) == ({}, None, {}, [])


def test_each_variable_is_understood() -> None:
    found = inherited(
        {
            "TTS_BACKEND": "qwen",
            "QWEN_TTS_MODEL_ID": "Qwen/Qwen3-TTS-12Hz-0.6B-Base",
            "PRELOAD_MODEL_ON_STARTUP": "0",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json",
            "LOG_PAYLOAD_CHARS": "500",
            "UVICORN_WORKERS": "2",
            "DEVICE": "cuda:0",
            "TORCH_DTYPE": "bfloat16",
        }
    )
    assert found.settings == {"log_level": "DEBUG", "log_format": "json", "preload": False}
    assert found.backend == "qwen3"
    assert found.qwen_options == {
        "model": "Qwen/Qwen3-TTS-12Hz-0.6B-Base",
        "device": "cuda:0",
        "dtype": "bfloat16",
    }
    assert "--pool-size" in found.warnings[0]


def test_ours_win() -> None:
    ours = {"VOICE_SERVER_LOG_LEVEL": "ERROR", "VOICE_SERVER_PRELOAD": "true"}
    others = {"LOG_LEVEL": "DEBUG", "PRELOAD_MODEL_ON_STARTUP": "0"}
    assert inherited({**ours, **others}).settings == {}


def test_values_of_other_programs_are_warnings() -> None:
    found = inherited({"LOG_LEVEL": "chatty", "LOG_FORMAT": "pretty"})
    assert found.settings == {}
    assert len(found.warnings) == 2


@pytest.fixture
def backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "".join(f"  {n}: {{python: {sys.executable}}}\n" for n in ("espeak", "tone", "qwen3"))
    (tmp_path / "backends.yaml").write_text(f"default: espeak\nbackends:\n{listing}")
    monkeypatch.setenv("VOICE_SERVER_BACKENDS_FILE", str(tmp_path / "backends.yaml"))


@pytest.mark.usefixtures("backends")
def test_they_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_BACKEND", "mock")
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    config = load_config()
    assert config.start == ("tone",)
    assert config.backend("qwen3").options == {"device": "cpu"}
    assert config.settings.log_level == "ERROR"
    assert load_config(log_level="INFO").settings.log_level == "INFO"


@pytest.mark.usefixtures("backends")
def test_a_backend_that_is_not_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_BACKEND", "polly")
    config = load_config()
    assert config.start == ("espeak",)
    assert "polly" in " ".join(config.warnings)
