"""Settings from the file, the environment and flags: who wins, and how it is shown."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from voice_server.cli.app import app
from voice_server.config import Config, load_config
from voice_server.core.errors import ConfigError

# The engine runs on this very Python: on a fresh machine none is installed.
FILE = f"""
default: tone
server:
  port: 9000
  host: 127.0.0.2
  allowed_origins: [http://localhost:8080]
  api_key: swordfish
  limits: {{max_contexts: 3, idle_timeout: 7.5}}
backends:
  tone: {{python: {sys.executable}}}
"""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("LOG_LEVEL", "LOG_FORMAT", "PRELOAD_MODEL_ON_STARTUP", "TTS_BACKEND")
    for name in list(os.environ):
        if name.startswith("VOICE_SERVER_") or name in others:
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "backends.yaml"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("VOICE_SERVER_BACKENDS_FILE", str(path))
    return path


def with_server(path: Path, server: str) -> Config:
    path.write_text(f"default: tone\nserver: {server}\nbackends:\n  tone:\n", encoding="utf-8")
    return load_config()


def test_the_file_sets_what_nobody_else_does(file: Path) -> None:
    config = load_config()
    assert (config.settings.port, config.settings.host) == (9000, "127.0.0.2")
    assert config.settings.allowed_origins == ("http://localhost:8080",)
    assert (config.limits.max_contexts, config.limits.idle_timeout) == (3, 7.5)
    assert config.limits.max_segment_chars == 300
    assert config.sources["port"] == config.sources["limits.max_contexts"] == "backends.yaml"


def test_the_environment_wins_over_the_file_and_a_flag_over_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_SERVER_PORT", "9001")
    monkeypatch.setenv("VOICE_SERVER_HOST", "127.0.0.3")
    monkeypatch.setenv("VOICE_SERVER_LIMITS_MAX_CONTEXTS", "4")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    config = load_config(port=9002)
    assert (config.settings.port, config.settings.host) == (9002, "127.0.0.3")
    assert (config.limits.max_contexts, config.limits.idle_timeout) == (4, 7.5)
    assert config.sources == {
        "port": "--port",
        "host": "VOICE_SERVER_HOST",
        "backends_file": "VOICE_SERVER_BACKENDS_FILE",
        "log_level": "LOG_LEVEL",
        "limits.max_contexts": "VOICE_SERVER_LIMITS_MAX_CONTEXTS",
        "allowed_origins": "backends.yaml",
        "api_key": "backends.yaml",
        "limits.idle_timeout": "backends.yaml",
    }


def test_an_unknown_name_in_the_file_is_a_warning_that_names_the_nearest(file: Path) -> None:
    config = with_server(file, "{prot: 9000, limits: {max_context: 3}}")
    assert config.settings.port == 8000
    assert any("server.prot › unknown setting; did you mean 'port'" in w for w in config.warnings)
    assert any("server.limits.max_context " in w and "max_contexts" in w for w in config.warnings)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("{port: many}", "backends.yaml › server.port › expected an integer"),
        ("{limits: {max_contexts: 0}}", "backends.yaml › server.limits.max_contexts › expected"),
        ("{limits: 3}", "backends.yaml › server.limits › expected"),
        ("[port]", "backends.yaml › server › expected"),
    ],
)
def test_a_wrong_value_in_the_file_is_an_error_with_its_place(
    file: Path, server: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_server(file, server)
    assert told in str(caught.value)


def test_show_lists_values_with_their_sources_and_keeps_secrets(file: Path) -> None:
    shown = CliRunner().invoke(app, ["config", "show"], env={"VOICE_SERVER_LOG_FORMAT": "json"})
    assert shown.exit_code == 0, shown.output
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.stdout.splitlines()}
    assert rows["port"] == ["9000", "backends.yaml"]
    assert rows["log_format"] == ["json", "VOICE_SERVER_LOG_FORMAT"]
    assert rows["limits.max_contexts"] == ["3", "backends.yaml"]
    assert rows["preload"] == ["true", "default"]
    assert rows["api_key"] == ["(set)", "backends.yaml"]
    assert "swordfish" not in shown.output


@pytest.fixture
def data(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    monkeypatch.setenv("VOICE_SERVER_DATA_DIR", str(path))
    return path


@pytest.mark.usefixtures("data")
def test_check_ends_with_2_where_the_server_would_not_start() -> None:
    assert CliRunner().invoke(app, ["config", "check"]).exit_code == 0
    wrong = CliRunner().invoke(app, ["config", "check"], env={"VOICE_SERVER_PORT": "x"})
    assert wrong.exit_code == 2
    assert "VOICE_SERVER_PORT" in wrong.output


def test_check_sees_what_only_a_start_would_find(data: Path, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    assert invoke(app, ["config", "check"]).exit_code == 0
    assert not data.exists()  # it looks, and makes nothing

    def refused(name: str, value: object) -> str:
        done = invoke(app, ["config", "check"], env={f"VOICE_SERVER_{name}": f"{value}"})
        assert done.exit_code == 2, done.output
        return done.output

    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no key, and no database" * 100)
    assert "64 hexadecimal digits" in refused("PACKAGE_SIGNING_KEY", garbage)
    assert "64 hexadecimal digits" in refused("PACKAGE_SIGNING_KEY", tmp_path / "nowhere")
    assert "64 hexadecimal digits" in refused("PACKAGE_TRUSTED_KEYS", f"{'a' * 64}, no key")
    assert "is no folder" in refused("DATA_DIR", garbage / "below")
    assert "cannot be opened" in refused("DATABASE_URL", f"sqlite+aiosqlite:///{garbage}")
    assert "asyncio driver" in refused("DATABASE_URL", "nonsense://somewhere")
    assert "16 characters" in refused("RELAY_BOXES", "home=short")
    newer = tmp_path / "newer.db"
    with contextlib.closing(sqlite3.connect(newer)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    said = refused("DATABASE_URL", f"sqlite+aiosqlite:///{newer}")
    assert "version '9999', which this server does not know" in said


@pytest.mark.usefixtures("data")
def test_check_sees_an_engine_that_is_not_installed(file: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "engine"
    adapter.mkdir()
    (adapter / "backend.py").write_text("")
    (adapter / "requirements.txt").write_text("numpy\n")
    for extra, status, told in (
        ("", 2, "error: mine › "),
        (", auto_install: true", 0, "warning: mine › "),
    ):
        file.write_text(f"backends:\n  mine: {{path: '{adapter}'{extra}}}\ndefault: mine\n")
        done = CliRunner().invoke(app, ["config", "check"])
        assert done.exit_code == status, done.output
        assert told in done.output
        assert "cli.py backends install mine" in done.output


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("{host: 0.0.0.0}", "VOICE_SERVER_API_KEY"),
        ("{api_key: swordfish, relay: 'wss://relay.example'}", "VOICE_SERVER_RELAY_KEY"),
        ("{relay: 'http://relay.example', relay_key: 0123456789abcdefg}", "--relay"),
    ],
)
def test_check_sees_settings_that_are_wrong_together(file: Path, server: str, told: str) -> None:
    with_server(file, server)
    wrong = CliRunner().invoke(app, ["config", "check"])
    assert wrong.exit_code == 2, wrong.output
    assert told in wrong.output
