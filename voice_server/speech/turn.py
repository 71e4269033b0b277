"""Performs what one SpeechSession asks for: its jobs at the workers, its timer.

Everything runs on the event loop's thread, to completion: workers and clients ``post`` events,
the owner ``take``s what the client shall receive. Nothing here awaits. Times are those of
``time.monotonic``: the loop's clock is the same one, but uvloop reads it in whole milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from voice_server.core import events as e
from voice_server.core import wire
from voice_server.core.delivery import Frame
from voice_server.core.errors import UNEXPECTED, VoiceServerError
from voice_server.core.playback import SAMPLE_RATE
from voice_server.core.session import SpeechSession
from voice_server.speech.route import Route
from voice_server.speech.tracing import TurnTrace
from voice_server.workers.job import UNLIMITED, Job

logger = logging.getLogger(__name__)

# Samples that a job of a backend with several slots may be ahead of what was sent: two seconds.
CREDIT = 2 * SAMPLE_RATE

# A segment that is ready whole does not go out in one go. With so many samples sent its listener
# has time; what follows waits a moment, in which the first sound crosses relay and client instead
# of competing with the rest for their processors.
HEAD_START = SAMPLE_RATE // 8
REST = 0.002


class _Sink:
    """Turns the calls of one job into events of its turn."""

    __slots__ = ("_segment", "_turn")

    def __init__(self, turn: Turn, segment: int) -> None:
        self._turn = turn
        self._segment = segment

    def started(self) -> None:
        self._turn.hear(e.SegmentStarted(self._segment))

    def audio(self, pcm: bytes) -> None:
        self._turn.hear(e.AudioArrived(self._segment, pcm))

    def words(self, words: list[list[int]]) -> None:
        self._turn.hear(e.WordsArrived(self._segment, words))

    def done(self, samples: int, timing: Mapping[str, float]) -> None:
        if self._turn.trace is not None:
            self._turn.trace.segment(self._segment, samples, timing)
        self._turn.end_job(self._segment, None)

    def failed(self, error: VoiceServerError) -> None:
        self._turn.end_job(self._segment, error)


@dataclass(slots=True)
class _Running:
    job: Job
    base: int  # samples of the turn that were sent before it
    granted: int


class Turn:
    """One turn of one client. ``on_output`` is called when there may be something to take."""

    def __init__(
        self,
        route: Route,
        options: e.TurnOptions,
        on_output: Callable[[], None],
        *,
        starts_at: float = 0.0,
        trace: TurnTrace | None = None,
    ) -> None:
        self.route = route
        self.trace = trace
        self.session = SpeechSession(options, starts_at=starts_at)
        self.error: VoiceServerError | None = None
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self.began_at = time.monotonic()
        self._events: deque[e.Event] = deque()
        self._is_handling = False
        self._jobs: dict[int, _Running] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop gives a handle without a time where it is now
        self._resting: asyncio.Handle | None = None

    def post(self, event: e.Event) -> None:
        """Handle an event now, or after the one that is being handled. Raises RequestError."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                now = time.monotonic()
                for command in self.session.handle(self._events.popleft(), now):
                    self._perform(command)
        finally:
            self._is_handling = False
        deadline = self.session.deadline
        if deadline is not None and (self._timer is None or self._timer_at > deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._set_timer(deadline)
        if self.session.has_news:
            self._on_output()

    def hear(self, event: e.Event) -> None:
        """As ``post``, for what comes from a worker: there is nobody to raise an error to."""
        try:
            self.post(event)
        except Exception:
            logger.exception("a turn failed")
            self.fail(VoiceServerError(UNEXPECTED))

    def take(self) -> dict[str, Any] | Frame | None:
        """The next message or frame to send, or None: nothing yet."""
        if self._resting is not None and not self.session.is_cancelled:
            return None
        now = time.monotonic()
        item = self.session.take(now)
        if isinstance(item, Frame):
            if self.trace is not None and item.offset == 0:
                self.trace.first_frame()
            for command in self.session.poll(now):
                self._perform(command)
            if self._jobs and self.route.is_batching:
                self.pace()
            if item.offset < HEAD_START <= self.session.delivery.playback.sent:
                self._resting = self._loop.call_later(REST, self._go_on)
        return item

    def fail(self, error: VoiceServerError) -> None:
        """End the turn with an error message; no sound follows it."""
        self.error = error
        self._perform_all(self.session.abort(wire.error_message(error)))

    def close(self) -> None:
        """Give up: cancel the jobs, tell nobody."""
        if not self.session.is_over:
            self._perform_all([e.CancelAll()])
        for handle in (self._timer, self._resting):
            if handle is not None:
                handle.cancel()

    def pace(self) -> None:
        """Give credit to the jobs of a backend that runs many at once."""
        playback = self.session.delivery.playback
        ahead = playback.sent + CREDIT
        if self.route.pool.is_contended:
            lead = int(self.route.lead_limit * SAMPLE_RATE)
            ahead = min(ahead, playback.heard(time.monotonic()) + lead)
        for running in self._jobs.values():
            credit = max(0, ahead - running.base)
            # Small changes are not worth a message.
            if abs(credit - running.granted) >= CREDIT // 8:
                running.granted = credit
                self.route.pool.grant(running.job, credit)

    @property
    def is_over(self) -> bool:
        return self.session.is_over

    @property
    def is_working(self) -> bool:
        """A worker has, or will have, something to do for it."""
        return bool(self._jobs)

    @property
    def is_quiet(self) -> bool:
        """It is not made, sent or heard just now: it waits for text."""
        delivery = self.session.delivery
        is_heard = delivery.playback.lead(time.monotonic()) > 0
        return not self._jobs and delivery.is_empty and not is_heard

    def end_job(self, segment: int, error: VoiceServerError | None) -> None:
        self._jobs.pop(segment, None)
        self.hear(e.SegmentEnded(segment, error))
        self._reconsider()

    # -- within ----------------------------------------------------------------------------------

    def _perform(self, command: e.Command) -> None:
        pool = self.route.pool
        match command:
            case e.Feed(segment, text):
                if running := self._jobs.get(segment):
                    pool.feed(running.job, text)
            case e.Synthesize(segment, text, is_guess, voice):
                self._submit(segment, text, is_guess, voice)
            case e.Open(segment):
                self._submit(segment, None, False)
            case e.EndText(segment):
                if running := self._jobs.get(segment):
                    pool.end_text(running.job)
            case e.Confirm(segment):
                if running := self._jobs.get(segment):
                    pool.confirm(running.job)
            case e.Drop(segment):
                if running := self._jobs.pop(segment, None):
                    pool.cancel(running.job)
            case e.CancelAll():
                jobs, self._jobs = self._jobs, {}
                for running in jobs.values():
                    pool.cancel(running.job)

    def _perform_all(self, commands: list[e.Command]) -> None:
        for command in commands:
            self._perform(command)
        self._on_output()

    def _submit(
        self,
        segment: int,
        text: str | None,
        is_guess: bool,
        voice: Mapping[str, Any] | None = None,
    ) -> None:
        route = self.route
        due = self.session.delivery.due
        job = Job(
            _Sink(self, segment),
            route.voice if voice is None else dict(voice),
            route.params,
            (route.seed + segment) % 2**63,
            text=text,
            due=lambda: due(segment),
            tenant=route.tenant,
            speculative=is_guess,
            first=segment == 0,
            credit=CREDIT if route.is_batching else UNLIMITED,
        )
        self._reconsider()
        self._jobs[segment] = _Running(job, self.session.delivery.released, CREDIT)
        route.pool.submit(job)

    def _reconsider(self) -> None:
        """A segment may be shorter than was thought; then those behind it are due earlier."""
        for running in self._jobs.values():
            self.route.pool.reconsider(running.job)

    def _go_on(self) -> None:
        self._resting = None
        self._on_output()

    def _set_timer(self, deadline: float) -> None:
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        deadline = self.session.deadline
        if deadline is None:
            return
        if deadline > time.monotonic():
            # Text came meanwhile: the timer is moved when it fires, not at every token.
            self._set_timer(deadline)
            return
        self.hear(e.Tick())
