"""The parts of the command line that need no engine: options, figures, logs, who may listen."""

from __future__ import annotations

import json
import logging
import resource
from typing import Any

import pytest
import typer

from voice_server.cli.console import errors_told, parse_option
from voice_server.cli.logs import JsonFormatter, TextFormatter, without_queries
from voice_server.cli.remote import authorization
from voice_server.cli.report import Report
from voice_server.cli.serve import allow_files, check_exposure, is_loopback
from voice_server.cli.speak import tokens_of
from voice_server.core.errors import (
    BackendNotInstalled,
    ConfigError,
    UnknownVoice,
    VoiceServerError,
    WorkerDied,
)
from voice_server.core.voices import Voice, VoiceIndex, resolve
from voice_worker.backend import BackendInfo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("speed=1.2", ("speed", 1.2)),
        ("pitch=60", ("pitch", 60)),
        ("ssml=true", ("ssml", True)),
        ("style=warm", ("style", "warm")),
        ("note=a=b", ("note", "a=b")),
        ("empty=", ("empty", "")),
        ('list=["a", 1]', ("list", ["a", 1])),
        ("speed=NaN", ("speed", "NaN")),
    ],
)
def test_an_option_is_json_where_it_is_json_and_text_otherwise(
    text: str, expected: tuple[str, Any]
) -> None:
    name, value = parse_option(text)
    assert (name, value) == expected
    assert type(value) is type(expected[1])


def test_an_empty_voice_is_remedied_by_a_command_where_one_types(
    capsys: pytest.CaptureFixture[str],
) -> None:
    voices = VoiceIndex([Voice("new", "One; two", "cloned")])
    with pytest.raises(typer.Exit), errors_told():
        resolve("One; two", "tone", BackendInfo(sample_rate=24_000), voices)
    problem = capsys.readouterr().err
    assert "voice 'One; two' has no recording yet; delete it" in problem
    assert "`cli.py voices clone NAME FILE`" in problem
    assert "POST" not in problem


@pytest.mark.parametrize("text", ["speed", "=1", ""])
def test_an_option_without_name_or_value_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected name=value, such as speed=1.2"):
        parse_option(text)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("--port › taken"), 2),
        (UnknownVoice("no voice"), 2),
        (WorkerDied("it went away"), 1),
        (BackendNotInstalled("espeak › not installed"), 1),
    ],
)
def test_an_error_becomes_a_line_and_an_exit_status(
    error: VoiceServerError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, errors_told():
        raise error
    assert caught.value.exit_code == status
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, has_key=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "speech.example", "128.0.0.1"])
def test_the_network_is_refused_without_a_key_and_the_remedy_is_named(host: str) -> None:
    assert not is_loopback(host)
    check_exposure(host, has_key=True)
    with pytest.raises(ConfigError, match="VOICE_SERVER_API_KEY"):
        check_exposure(host, has_key=False)


def record(name: str, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "file.py", 1, message, args, None)


def test_a_key_from_a_file_is_shown_without_its_line_break() -> None:
    assert authorization("secret\n") == {"Authorization": "Bearer secret"}
    assert authorization("\n") == authorization(None) == {}


@pytest.mark.parametrize(
    ("limits", "raised", "is_told"),
    [
        ((1024, 524_288), [(6024, 524_288)], False),
        ((256, resource.RLIM_INFINITY), [(6024, resource.RLIM_INFINITY)], False),
        ((1024, 4096), [(4096, 4096)], True),
        ((4096, 4096), [], True),
        ((20_000, 20_000), [], False),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), [], False),
    ],
)
def test_the_server_may_open_a_file_for_each_of_its_connections(
    limits: tuple[int, int],
    raised: list[tuple[int, int]],
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[int, int]] = []
    told: list[object] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: found.append(wanted))
    monkeypatch.setattr("voice_server.cli.serve.logger.warning", lambda *said: told.append(said))
    allow_files(5_000)
    assert found == raised
    assert bool(told) is is_told


def test_query_strings_never_reach_the_log() -> None:
    line = record(
        "uvicorn.error",
        '%s - "WebSocket %s" [accepted]',
        "127.0.0.1:1",
        "/stream?text=hi&api_key=k",
    )
    assert without_queries(line)
    assert line.getMessage() == '127.0.0.1:1 - "WebSocket /stream" [accepted]'
    ours = record("voice_server.cli", "did it work? %s", "why? not")
    without_queries(ours)
    assert ours.getMessage() == "did it work? why? not"


def test_a_log_line_is_text_or_one_json_object() -> None:
    line = record("voice_server.speech", "turn %s", "done")
    assert TextFormatter().format(line).endswith("INFO    voice_server.speech  turn done")
    read = json.loads(JsonFormatter().format(line))
    assert read["message"] == "turn done"
    assert read["level"] == "INFO"
    assert read["time"].endswith("Z")


def test_a_logged_exception_stays_on_its_json_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as exc:
        line = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "it failed", (), (type(exc), exc, exc.__traceback__)
        )
    formatted = JsonFormatter().format(line)
    assert "\n" not in formatted
    assert "ValueError: why" in json.loads(formatted)["exception"]


def test_the_report_counts_what_was_heard() -> None:
    report = Report()
    assert report.line() == "no sound: there was nothing to say"
    report.token()
    report.frame(bytes(960))
    report.frame(bytes(9600))
    report.stats = {"ttfa_ms": 1.25, "underruns": 2}
    line = report.line()
    assert report.frames == 2
    assert report.samples == 5280
    assert "first sound 1.2 ms after its text" in line
    assert "0.22 s of sound" in line
    assert "underruns 2" in line


async def _joined(text: str) -> list[str]:
    return [token async for token in tokens_of(text, 0.0, Report())]


@pytest.mark.parametrize("text", ["Hello there, world. ", " a  b\n\nc ", "é" * 17, "x", "  "])
def test_simulated_tokens_join_to_the_text(text: str) -> None:
    import asyncio

    tokens = asyncio.run(_joined(text))
    assert "".join(tokens) == text
    assert all(len(token.strip()) <= 5 for token in tokens)
