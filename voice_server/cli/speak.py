"""``cli.py --text`` and ``--stream-tokens``: one turn, from text to a file or a sound device."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import signal
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from voice_server.cli.console import note, tell_error
from voice_server.cli.engine import engine
from voice_server.cli.playback import Player, Sink, SoundFile, open_player
from voice_server.cli.report import Report
from voice_server.config import Config
from voice_server.core.delivery import Frame
from voice_server.core.wire import Configure
from voice_server.speech.service import SpeechService

SAMPLE_TEXT = (
    "Hello! I am speaking while I am still thinking. "
    "Every word arrives as a token, and the first sentence is heard before the last is written."
)

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What to say and where it goes. ``text`` None: what standard input brings, as it comes.

    ``token_delay``: seconds between the tokens of a simulated language model; None: all at once.
    """

    asked: Configure
    text: str | None
    token_delay: float | None = None
    output: Path | None = None
    is_played: bool | None = None


async def speak(
    service: SpeechService,
    text: str | AsyncIterable[str],
    asked: Configure,
    sinks: Sequence[Sink],
    show: Show,
    report: Report,
) -> None:
    """Speak one turn into the sinks. Raises what SpeechService.speak raises."""
    async with aclosing(service.speak(text, asked)) as items:
        async for item in items:
            if isinstance(item, Frame):
                is_first = report.first_sound is None
                report.frame(item.pcm)
                for sink in sinks:
                    sink.write(item.pcm)
                if is_first:
                    show({"type": "first_sound"})
                continue
            if item["type"] == "error":
                report.errors += 1
            elif item["type"] == "done":
                report.stats = item["stats"]
            show(item)


async def tokens_of(text: str, delay: float, report: Report) -> AsyncIterator[str]:
    """Cut a text as a language model would: a few characters, a pause."""
    for token in re.findall(r"\s*\S{1,5}|\s+", text):
        report.token()
        yield token
        await asyncio.sleep(delay)


async def tokens_of_stdin(report: Report) -> AsyncIterator[str]:
    """What another program prints, as soon as it prints it."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        data = b"x"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            while data:
                data = os.read(0, 4096)
                loop.call_soon_threadsafe(arrived.put_nowait, data)

    # A thread of our own: nobody waits for it at the end, when stdin may still be open.
    threading.Thread(target=read, daemon=True).start()
    waiting = loop.call_later(2.0, note, "waiting for text on standard input, or use --text")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    data = await arrived.get()
    waiting.cancel()
    report.token()
    if not data:
        note("standard input is empty: saying a sample")
        yield SAMPLE_TEXT
    while data:
        yield decoder.decode(data)
        data = await arrived.get()
    yield decoder.decode(b"", final=True)


class Timeline:
    """Shows a turn as it happens: the tokens as they come, and what they lead to."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._is_inside_line = False

    async def tokens(self, source: AsyncIterator[str]) -> AsyncIterator[str]:
        async with aclosing(source) as tokens:  # type: ignore[type-var]
            async for token in tokens:
                typer.secho(token, nl=False, dim=True)
                self._is_inside_line = not token.endswith("\n")
                yield token

    def show(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "generating":
                queue = f"  ({message['queue_depth']} wait)" if message["queue_depth"] else ""
                self.line("generating", f"{message['sentence']!r}{queue}")
            case "first_sound":
                self.line("first sound", "")
            case "segment_done":
                self.line("segment done", f"{message['duration_ms'] / 1000:.2f} s of sound")
            case "error":
                self._break()
                tell_error(f"{message['msg']} ({message['code']})")

    def line(self, what: str, about: str) -> None:
        self._break()
        what = typer.style(f"{what:<13}", bold=True)
        typer.echo(f"{self._report.elapsed:8.3f} s  {what}{about}")

    def _break(self) -> None:
        if self._is_inside_line:
            typer.echo()
            self._is_inside_line = False


def show_errors(message: dict[str, Any]) -> None:
    if message["type"] == "error":
        tell_error(f"{message['msg']} ({message['code']})")


def run(config: Config, order: Order) -> int:
    """Speak the order with the default backend. Returns the exit status."""
    return asyncio.run(_run(config, order))


async def _run(config: Config, order: Order) -> int:
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if order.output:
            sinks.append(stack.enter_context(contextlib.closing(SoundFile(order.output))))
        player = open_player(order.is_played)
        if player:
            sinks.append(stack.enter_context(contextlib.closing(player)))
        async with engine(config) as service:
            await service.route(order.asked)  # a wrong voice is told before a clock runs
            report = Report()
            status = await _speak_order(service, order, sinks, player, report)
    if order.output and report.samples:
        typer.echo(f"written to {order.output}")
    return status


async def _speak_order(
    service: SpeechService,
    order: Order,
    sinks: Sequence[Sink],
    player: Player | None,
    report: Report,
) -> int:
    text: str | AsyncIterator[str] = order.text or ""
    show: Show = show_errors
    if order.text is None or order.token_delay is not None:
        timeline = Timeline(report)
        delay = order.token_delay or 0.0
        source = (
            tokens_of_stdin(report) if order.text is None else tokens_of(order.text, delay, report)
        )
        text, show = timeline.tokens(source), timeline.show

    async def turn() -> None:
        await speak(service, text, order.asked, sinks, show, report)
        typer.echo(report.line())
        if player:
            await player.finish()

    task = asyncio.create_task(turn())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if player:
            player.drop()
        typer.echo(f"interrupted after {report.samples / 24_000:.2f} s of sound")
        return 130
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return 1 if report.errors else 0
