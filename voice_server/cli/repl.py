"""``cli.py --repl``: say each line that is typed, until a key interrupts.

prompt ─line─► speaking ─last sound, or Esc / Ctrl-C─► prompt
   └─/command─► done at once ─► prompt
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.keys import Keys

from voice_server.cli.console import note, parse_option, tell_error
from voice_server.cli.engine import engine
from voice_server.cli.installing import install_what_is_missing
from voice_server.cli.playback import Player, Sink, SoundFile, open_player
from voice_server.cli.report import Report
from voice_server.cli.speak import show_errors, speak
from voice_server.config import Config
from voice_server.core.errors import ConfigError, VoiceServerError
from voice_server.core.expectations import suggest
from voice_server.core.voices import can_speak, speaker_voices
from voice_server.core.wire import Configure
from voice_server.speech.service import SpeechService

COMMANDS = {
    "/voice": "NAME   speak with this voice; alone: which one it is",
    "/backend": "NAME   change the engine; alone: which there are",
    "/opt": "K=V     set an option of the engine; K= takes it back; alone: what is set",
    "/save": "FILE    write the last thing said to .wav, .mp3, .opus or .flac",
    "/help": "        this list",
    "/quit": "        leave; Ctrl-D too",
}


class Repl:
    """One session. ``voices`` and ``service`` change with the engine."""

    def __init__(self, config: Config, asked: Configure, player: Player | None) -> None:
        self.config = config
        self.asked = asked
        self.player = player
        self.voices: list[str] = []
        self.last = bytearray()
        self._service: SpeechService | None = None
        self._engines = AsyncExitStack()

    async def use(self, config: Config) -> None:
        """Run the engine of this configuration instead of the one before."""
        # Once keys interrupt, the terminal takes no line that would answer a question.
        install_what_is_missing(config, asks=self._service is None)
        engines = AsyncExitStack()
        service = await engines.enter_async_context(engine(config))
        name = config.default
        try:
            # A voice or an option of another engine may not exist here.
            asked = self.asked if self._service is None else Configure(language=self.asked.language)
            await service.route(asked)
        except BaseException:
            await engines.aclose()
            raise
        await self._engines.aclose()
        self._engines, self._service, self.config, self.asked = engines, service, config, asked
        info = service.pools[name].info
        assert info is not None
        mine = [voice for voice in service.catalogue.voices() if can_speak(info, voice)]
        self.voices = [voice.id for voice in [*mine, *speaker_voices(name, info)]]
        self.voices += config.backend(name).aliases

    async def close(self) -> None:
        await self._engines.aclose()

    async def take(self, line: str) -> bool:
        """Do what a line says. False: leave. Our errors are told here."""
        line = line.strip()
        try:
            if line.startswith("/"):
                return await self._command(*line.split(None, 1))
            if line:
                await self._say(line)
        except VoiceServerError as exc:
            tell_error(exc)
        return True

    async def _command(self, name: str, argument: str = "") -> bool:
        match name:
            case "/quit" | "/exit":
                return False
            case "/help":
                for command, about in COMMANDS.items():
                    typer.echo(f"  {command:<9}{about}")
                typer.echo("  Esc or Ctrl-C interrupts what is being said.")
            case "/voice":
                await self._set_voice(argument)
            case "/backend":
                await self._set_backend(argument)
            case "/opt":
                await self._set_option(argument)
            case "/save":
                self._save(argument)
            case _:
                raise ConfigError(f"unknown command {name}{suggest(name, COMMANDS)}")
        return True

    async def _try(self, asked: Configure) -> None:
        """Take over a configuration if the engine accepts it."""
        assert self._service is not None
        await self._service.route(asked)
        self.asked = asked

    async def _set_voice(self, name: str) -> None:
        if name:
            await self._try(replace(self.asked, voice=name))
        note(f"voice: {self.asked.voice or 'the default'} (of {len(self.voices)}, Tab lists them)")

    async def _set_backend(self, name: str) -> None:
        if name:
            await self.use(self.config.with_backends([name]))
        others = ", ".join(self.config.visible())
        note(f"backend: {self.config.default} (there are {others})")

    async def _set_option(self, pair: str) -> None:
        opts = dict(self.asked.opts)
        if pair.endswith("=") and pair[:-1] in opts:
            del opts[pair[:-1]]
        elif pair:
            opts |= [parse_option(pair)]
        await self._try(replace(self.asked, opts=opts))
        note("options: " + (", ".join(f"{k}={v}" for k, v in opts.items()) or "none"))

    def _save(self, path: str) -> None:
        if not self.last:
            raise ConfigError("nothing was said yet: there is nothing to save")
        if not path:
            raise ConfigError("/save › expected a file, such as hello.wav")
        file = SoundFile(Path(path).expanduser(), named="/save ")
        with contextlib.closing(file):
            file.write(bytes(self.last))
        note(f"written to {path}")

    async def _say(self, text: str) -> None:
        assert self._service is not None
        said = bytearray()
        report = Report()
        sinks: list[Sink] = [_Memory(said)]
        if self.player:
            sinks.append(self.player)
        try:
            await speak(self._service, text, self.asked, sinks, show_errors, report)
            typer.secho(report.line(), dim=True)
            if self.player:
                await self.player.finish()
        except asyncio.CancelledError:
            if self.player:
                self.player.drop()
            raise
        finally:
            self.last = said or self.last


class _Memory:
    """Keeps what was said, for /save."""

    def __init__(self, kept: bytearray) -> None:
        self._kept = kept

    def write(self, pcm: bytes) -> None:
        self._kept += pcm


class Words(Completer):
    """Completes commands, and after /voice and /backend what they take."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        line = document.text_before_cursor
        command, space, begun = line.partition(" ")
        choices: Iterable[str] = COMMANDS
        if space:
            known = {"/voice": self._repl.voices, "/backend": self._repl.config.visible()}
            choices = known.get(command, ())
        elif not line.startswith("/"):
            return
        wanted = (begun if space else command).casefold()
        for choice in choices:
            if choice.casefold().startswith(wanted):
                yield Completion(choice, start_position=-len(wanted))


@asynccontextmanager
async def interruptible(task: asyncio.Task[bool], keys: Input) -> AsyncIterator[None]:
    """While it runs, Esc and Ctrl-C cancel the task; what else is typed waits for the prompt."""

    def pressed() -> None:
        presses = [*keys.read_keys(), *keys.flush_keys()]
        others = [press for press in presses if press.key not in (Keys.Escape, Keys.ControlC)]
        if len(others) < len(presses):
            task.cancel()
        store_typeahead(keys, others)

    with keys.raw_mode(), keys.attach(pressed):
        yield


async def converse(repl: Repl, session: PromptSession[str], keys: Input) -> None:
    """Prompt, do, prompt, until the person leaves."""
    while True:
        try:
            line = await session.prompt_async(f"{repl.config.default}> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            # A pipe may end without a line break.
            await repl.take(session.default_buffer.text)
            return
        task = asyncio.create_task(repl.take(line))
        async with interruptible(task, keys):
            await asyncio.wait([task])
        if task.cancelled():
            note("interrupted")
        elif not task.result():
            return


def history() -> History | None:
    """Kept between sessions, readable by its owner alone; None where that is impossible."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "voice-server" / "history"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        return FileHistory(path)
    return None


def run_repl(config: Config, asked: Configure, is_played: bool | None) -> None:
    """Run a session at this terminal. Raises ConfigError, and what starting the engine raises."""
    if sys.stdin is None:
        raise ConfigError("--repl › standard input is closed; use --text")
    asyncio.run(_run(config, asked, is_played))


async def _run(config: Config, asked: Configure, is_played: bool | None) -> None:
    player = open_player(is_played)
    repl = Repl(config, asked, player)
    try:
        await repl.use(config)
        keys = create_input()
        session: PromptSession[str] = PromptSession(
            history=history(), completer=Words(repl), complete_while_typing=False, input=keys
        )
        note("Type something to hear it; /help lists the commands.")
        await converse(repl, session, keys)
    finally:
        await repl.close()
        if player:
            player.close()
