"""``cli.py compare``: the same text by several engines, on one page to be listened to."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voice_server.cli.console import (
    errors_told,
    parse_option,
    print_table,
    progress,
    tell_error,
    told,
)

if TYPE_CHECKING:
    from voice_server.cli.comparison import Take
    from voice_server.config import Config
    from voice_server.core.wire import Configure

WARM_UP = "Hello."


def compare(
    text: Annotated[str, typer.Argument(help="What they say.")],
    backends: Annotated[str, typer.Option(help="The engines, with commas between.")],
    voice: Annotated[
        list[str] | None,
        typer.Option(
            help="The voice: NAME for all of them, or ENGINE=NAME for one. May be repeated.",
            show_default="each engine's own",
        ),
    ] = None,
    opt: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="An option of all of them. May be repeated."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the text.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path(
        "compare.html"
    ),
) -> None:
    """Let several engines say the same, and write one page with their sound and their figures."""
    from voice_server.cli.comparison import page
    from voice_server.cli.logs import configure_logging
    from voice_server.config import load_config
    from voice_server.core.errors import ConfigError
    from voice_server.core.wire import parse_config

    with errors_told():
        configure_logging("ERROR")
        config = load_config()
        names = list(dict.fromkeys(name.strip() for name in backends.split(",") if name.strip()))
        if not (names and text.strip()):
            raise ConfigError("compare › expected something to say, and --backends to say it")
        voices = _voices(voice or [], names)
        opts = dict(map(parse_option, opt or ()))
        asked = {
            name: parse_config({"voice": voices.get(name), "opts": opts, "language": language})
            for name in names
        }
        configs = {name: config.with_backends([name], pool_size=1) for name in names}
        takes = [_take(name, configs[name], text, asked[name]) for name in names]
        try:
            output.write_text(page(text, takes, _machine()), "utf-8")
        except OSError as exc:
            raise ConfigError(f"--output {output} › cannot be written: {exc.strerror}") from None
        _tell(takes)
        typer.echo(f"written to {output}")
        if any(take.error for take in takes):
            raise typer.Exit(1)


def _voices(given: list[str], names: list[str]) -> dict[str, str]:
    """Which voice each engine is asked for."""
    voices: dict[str, str] = {}
    for voice in given:
        # A voice may have an = in its name; an engine of this run has none.
        engine, is_pair, name = voice.partition("=")
        if is_pair and engine in names:
            voices[engine] = name
        else:
            voices = {**dict.fromkeys(names, voice), **voices}
    return voices


def _take(name: str, config: Config, text: str, asked: Configure) -> Take:
    from voice_server.cli.comparison import Take
    from voice_server.cli.installing import install_what_is_missing
    from voice_server.core.errors import VoiceServerError

    try:
        install_what_is_missing(config)
        with progress(f"{name} speaks"):
            return asyncio.run(_speak(name, config, text, asked))
    except VoiceServerError as exc:
        return Take(name, asked.voice or "", error=told(exc))


async def _speak(name: str, config: Config, text: str, asked: Configure) -> Take:
    from voice_server.audio.encode import encode_whole
    from voice_server.cli.comparison import Take
    from voice_server.cli.engine import engine
    from voice_server.cli.report import RATE, Report
    from voice_server.cli.speak import speak

    sound = Sound()
    problems: dict[str, None] = {}  # each once, in their order: the warm-up has the same ones

    def note_errors(message: dict[str, Any]) -> None:
        if message["type"] == "error":
            problems[f"{message['msg']} ({message['code']})"] = None

    began = time.perf_counter()
    async with engine(config) as service:
        await service.pools[name].wait_ready(config.backend(name).load_timeout)
        load = time.perf_counter() - began
        route = await service.route(asked)
        await speak(service, WARM_UP, asked, (), note_errors, Report())
        report = Report()
        await speak(service, text, asked, (sound,), note_errors, report)
        workers = service.pools[name].snapshot()["workers"]
    if problems or report.first_sound is None:
        return Take(name, route.voice_name, error="; ".join(problems) or "it made no sound")
    return Take(
        name,
        route.voice_name,
        wav=encode_whole(bytes(sound.pcm)),
        ttfa_ms=report.stats.get("ttfa_ms") or 0.0,
        rtf=report.rtf,
        audio=report.samples / RATE,
        load=load,
        memory_mb=workers[0]["resident_mb"] if workers else None,
    )


class Sound:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.pcm = bytearray()

    def write(self, pcm: bytes) -> None:
        self.pcm += pcm


def _machine() -> str:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{made}, {platform.machine()}, {os.cpu_count()} processors, {platform.system()}"


def _tell(takes: list[Take]) -> None:
    columns = ("engine", "voice", "first sound, ms", "RTF", "sound, s", "ready, s", "MB")
    spoken = [take for take in takes if not take.error]
    print_table(columns, [(take.backend, take.voice, *take.figures()) for take in spoken])
    for take in takes:
        if take.error:
            tell_error(f"{take.backend} › {take.error}")
