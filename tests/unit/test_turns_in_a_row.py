"""Turns of one context: each is heard when the listener has heard the one before it."""

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from voice_server.core import events as e
from voice_server.core.wire import Cancel, Configure, Done, Token
from voice_server.speech import context as contexts
from voice_server.speech import turn as turns
from voice_server.speech.context import Context
from voice_server.speech.output import Output
from voice_server.speech.route import Route
from voice_server.speech.turn import Turn
from voice_server.workers.job import Job

TEN_SECONDS = 240_000


class Pool:
    """Makes ten seconds of silence of every text, at once."""

    is_contended = False

    def submit(self, job: Job) -> None:
        job.sink.started()
        job.sink.audio(bytes(2 * TEN_SECONDS))
        job.sink.done(TEN_SECONDS, {})

    def reconsider(self, job: Job) -> None: ...

    def cancel(self, job: Job) -> None: ...


class Listener:
    """A context with ``keep_open``, whose time goes by when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: self._now)
        monkeypatch.setattr(turns, "time", clock)
        monkeypatch.setattr(contexts, "time", clock)
        self._wake = asyncio.Event()
        options = e.TurnOptions(max_delay=None)
        route = Route("x", Pool(), {}, "", {}, options, options, 0)  # type: ignore[arg-type]
        self.turns: list[weakref.ref[Turn]] = []

        def begin(route: Route, wake: Callable[[], None], *, starts_at: float) -> Turn:
            turn = Turn(route, options, wake, starts_at=starts_at)
            self.turns.append(weakref.ref(turn))
            return turn

        service: Any = SimpleNamespace(begin=begin, end=lambda turn: None)
        self.context = Context(None, Configure(keep_open=True), service, Output(0), self._wake.set)
        self.context.route = route

    def say(self, text: str, *, is_all: bool = True) -> None:
        self.context.speak(Token(text))
        if is_all:
            self.context.speak(Done())

    def wait(self, seconds: float) -> None:
        self._now += seconds

    async def interrupt(self) -> dict[str, Any]:
        self.context.cancel(Cancel())
        return await self.until("cancelled")

    async def until(self, kind: str) -> dict[str, Any]:
        """Take everything up to the first message of this kind."""
        while True:
            message = await self.take()
            if isinstance(message, str) and (told := json.loads(message))["type"] == kind:
                return dict(told)

    async def take(self) -> str | bytes:
        while (message := self.context.next_message()) is None:
            self._wake.clear()
            await asyncio.wait_for(self._wake.wait(), 30)
        return message


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Listener], Awaitable[None]]], None]:
    async def go(test: Callable[[Listener], Awaitable[None]]) -> None:
        await test(Listener(monkeypatch))

    return lambda test: asyncio.run(go(test))


def test_a_turn_that_began_while_another_was_sent_is_interrupted_where_it_is(run: Any) -> None:
    async def go(listener: Listener) -> None:
        listener.say("One.")
        listener.say("Two.")  # nothing is sent yet of the one before it
        await listener.until("done")
        await listener.until("done")
        listener.wait(15.0)
        cancelled = await listener.interrupt()
        assert cancelled["played_ms"] == pytest.approx(5_000, abs=1)
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == "Two."

    run(go)


def test_nobody_waits_for_what_was_interrupted(run: Any) -> None:
    async def go(listener: Listener) -> None:
        listener.say("One. And then", is_all=False)
        received = 0
        while received < 2 * TEN_SECONDS:
            message = await listener.take()
            received += len(message) if isinstance(message, bytes) else 0
        listener.context.cancel(Cancel())
        listener.say("Two.")  # in the same packet, so the answer is still to be sent
        await listener.until("cancelled")
        await listener.until("done")
        listener.wait(5.0)
        assert (await listener.interrupt())["played_ms"] == pytest.approx(5_000, abs=1)

    run(go)


def test_a_turn_is_forgotten_once_it_was_heard_even_if_there_is_always_another(run: Any) -> None:
    async def go(listener: Listener) -> None:
        listener.say("One.", is_all=False)
        for _ in range(5):
            listener.context.speak(Done())
            listener.say("One.", is_all=False)
            await listener.until("done")
            listener.wait(11.0)
        gc.collect()
        # The one under way, and the one that was sent last.
        assert sum(turn() is not None for turn in listener.turns) <= 2

    run(go)
