"""Speech for every door: resolves what is asked for, admits turns, keeps conversations.

Doors own no state. A WebSocket door gives ``converse`` a channel; every other one, and the command
line, iterates over ``speak``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, MutableMapping
from typing import Any

from voice_server.config import Config, Limits
from voice_server.core import wire
from voice_server.core.admission import Load, admit
from voice_server.core.delivery import Frame
from voice_server.core.errors import (
    BusyError,
    Draining,
    NotReady,
    ResumeFailed,
    UnknownBackend,
    UnknownVoice,
    VoiceServerError,
)
from voice_server.core.expectations import suggest
from voice_server.core.voices import owners
from voice_server.speech.channel import Channel, ChannelClosed
from voice_server.speech.conversation import Conversation
from voice_server.speech.metrics import Metrics
from voice_server.speech.parking import Parking
from voice_server.speech.route import Route, find_route
from voice_server.speech.tracing import Tracing
from voice_server.speech.turn import Turn
from voice_server.storage.catalogue import Catalogue
from voice_server.workers.pool import WorkerPool
from voice_worker.backend import BackendInfo

logger = logging.getLogger(__name__)

READY_TIMEOUT = 20.0  # a client that comes before the workers are warm waits this long
SWEEP = 0.1
FED_AT_ONCE = 1_000  # characters, between which other turns get a word in


class SpeechService:
    def __init__(
        self,
        config: Config,
        pools: MutableMapping[str, WorkerPool],
        catalogue: Catalogue,
        *,
        is_patient: bool = False,
    ) -> None:
        """``pools`` by backend name, the default first; a model that is unloaded swaps its own.

        ``is_patient``: an engine is waited for as long as it may load, not as long as a client is
        kept waiting.
        """
        self.config = config
        self._is_patient = is_patient
        self.pools = pools
        self.catalogue = catalogue
        self.metrics = Metrics(pools)
        self.tracing = Tracing() if config.settings.traces else None
        self.is_draining = False
        self._turns: set[Turn] = set()
        self._conversations: set[Conversation] = set()
        self.parking = Parking(self.limits.resume_window)
        self.metrics.parked.set_function(lambda: len(self.parking))
        self._sockets = 0
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def limits(self) -> Limits:
        return self.config.limits

    async def start(self) -> None:
        """Begin to warm the workers of every pool, side by side; returns at once."""
        self._sweeper = asyncio.create_task(self._sweep())
        if self.config.settings.preload:
            for pool in self.pools.values():
                if not pool.is_started:
                    await pool.start()

    async def stop(self) -> None:
        """End everything: refuse new turns, let running ones finish, then stop the workers."""
        await self.drain(self.limits.drain_timeout)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for conversation in list(self._conversations):
            conversation.close()
        await asyncio.gather(*(pool.stop(0.0) for pool in self.pools.values()))
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    async def drain(self, timeout: float) -> bool:
        """Refuse new turns and wait for those under way. True when all have ended in time."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._listened_to():
                    await asyncio.sleep(0.02)
        left = self._listened_to()
        for conversation in list(self._conversations):
            conversation.end(Draining("the server is going away; connect again in a moment"))
        if self._conversations:
            await asyncio.sleep(0.05)
        return not left

    def _listened_to(self) -> int:
        """Turns under way, but for those whose client has dropped and may never come back."""
        return len(self._turns) - sum(conversation.turns for conversation in self.parking)

    # -- what a turn needs -----------------------------------------------------------------------

    def pool(self, backend: str | None) -> tuple[str, WorkerPool]:
        """The pool of that name, or the default one. Raises UnknownBackend."""
        name = backend or next(iter(self.pools))
        try:
            return name, self.pools[name]
        except KeyError:
            hint = suggest(name, self.pools)
            raise UnknownBackend(f"no backend named {name[:80]!r} is running{hint}") from None

    async def route(self, asked: wire.Configure, tenant: str = "", door: str = "local") -> Route:
        """Resolve a configuration. Waits a little for workers that are not warm yet.

        ``door``: where it was asked, for the metrics.

        Raises UnknownBackend, UnknownVoice, UnknownOption, NotReady.
        """
        backend, pool = self.pool(asked.backend)
        info = pool.info or await self.info(backend)
        if not info.normalizes:
            # Its first use for a language reads grammars, for up to two seconds.
            from voice_server.core.text.normalisation import prepare

            await asyncio.to_thread(prepare, asked.language or "en")
        # Last, since a model may be unloaded while something else is awaited.
        if not self.pools[backend].has_been_ready:
            info = await self.info(backend)
        pool = self.pools[backend]
        try:
            route = find_route(
                asked, tenant, door, pool, info, config=self.config, catalogue=self.catalogue
            )
        except UnknownVoice as exc:
            infos = {name: pool.info for name, pool in self.pools.items() if pool.info}
            raise UnknownVoice(f"{exc}{owners(asked.voice, infos)}", code=exc.code) from None
        return route

    async def known(self, backend: str) -> BackendInfo:
        """As ``info``; but a model that is unloaded, and has run before, is not loaded for it."""
        _, pool = self.pool(backend)
        if pool.info is not None and not pool.is_started:
            return pool.info
        return await self.info(backend)

    async def info(self, backend: str) -> BackendInfo:
        """What a running backend can do. Waits for its workers; raises NotReady."""
        name, pool = self.pool(backend)
        patience = self.config.backend(name).load_timeout if self._is_patient else READY_TIMEOUT
        try:
            await pool.wait_ready(patience)
        except VoiceServerError as exc:
            raise NotReady(f"backend {backend!r} is not ready: {exc}; see /ready") from None
        assert pool.info is not None
        return pool.info

    @property
    def can_speak(self) -> bool:
        """The default backend is ready, or its model is unloaded: the next turn loads it."""
        default = next(iter(self.pools.values()))
        # Whoever sends traffic to the ready alone would never send the turn that loads it.
        return default.is_ready or not default.is_started

    def turns_on(self, pool: WorkerPool) -> int:
        """Turns that this pool speaks."""
        return sum(turn.route.pool is pool for turn in self._turns)

    def begin(
        self, route: Route, on_output: Any, *, starts_at: float = 0.0, is_live: bool = True
    ) -> Turn:
        """A new turn. ``is_live``: somebody listens while it is made, so it must not stutter.

        Raises BusyError when the pool has no room for it, Draining when the server goes away.
        """
        if self.is_draining:
            raise Draining("the server is going away; connect again in a moment")
        if is_live:
            self._admit(route)
        tracing = self.tracing
        trace = None if tracing is None else tracing.begin(route.backend, route.door)
        options = route.options_for_listener() if is_live else route.options
        turn = Turn(route, options, on_output, starts_at=starts_at, trace=trace)
        self.catalogue.borrowed.borrow(route.voice)
        self._turns.add(turn)
        self.metrics.active.labels(route.backend).inc()
        return turn

    def _admit(self, route: Route) -> None:
        pool = route.pool
        while True:
            turns = Counter(turn.route.tenant for turn in self._turns if turn.route.pool is pool)
            load = Load(
                route.slots,
                turns.total(),
                pool.capacity().rtf,
                route.options.streams_text,
                turns[route.tenant] if route.tenant else None,
                max(turns.values(), default=0),
            )
            try:
                admit(load, backend=route.backend)
            except BusyError:
                if not self.parking.give_way(pool):
                    raise
            else:
                return

    def end(self, turn: Turn) -> None:
        """The turn is over: count it, and log it in one line."""
        if turn not in self._turns:
            return
        self._turns.discard(turn)
        self.catalogue.borrowed.give_back(turn.route.voice)
        session, backend = turn.session, turn.route.backend
        stats = session.stats
        outcome = (
            "failed"
            if turn.error
            else "cancelled"
            if session.is_cancelled
            else ("done" if session.is_over else "dropped")
        )
        metrics = self.metrics
        metrics.active.labels(backend).dec()
        metrics.turns.labels(backend, outcome, turn.route.door).inc()
        if session.delivery.ttfa is not None:
            metrics.ttfa.labels(backend, turn.route.door).observe(session.delivery.ttfa)
        metrics.underruns.labels(backend).inc(stats["underruns"])
        metrics.audio.labels(backend).inc(session.delivery.playback.sent / 24_000)
        metrics.characters.labels(backend).inc(stats["characters"])
        metrics.segment_errors.labels(backend).inc(session.delivery.errors)
        if turn.trace is not None:
            turn.trace.end(outcome, segments=stats["segments"], underruns=stats["underruns"])
        took = asyncio.get_running_loop().time() - turn.began_at
        audio = stats["audio_ms"] / 1000
        logger.info(
            "turn %s door=%s backend=%s ttfa_ms=%s audio_s=%.2f rtf=%s "
            "segments=%d underruns=%d errors=%d",
            *(outcome, turn.route.door, backend, stats["ttfa_ms"], audio),
            f"{took / audio:.3f}" if audio else "-",
            *(stats["segments"], stats["underruns"], session.delivery.errors),
        )

    # -- doors -----------------------------------------------------------------------------------

    async def speak(
        self,
        text: str | AsyncIterable[str],
        asked: wire.Configure,
        tenant: str = "",
        *,
        is_live: bool = False,
        door: str = "local",
    ) -> AsyncGenerator[dict[str, Any] | Frame, None]:
        """Speak one turn: yields frames of PCM (int16, 24 kHz) and messages, ``done`` the last.

        Raises what ``route`` and ``begin`` raise, before the first item. A segment that fails is
        an ``error`` message. Closing the generator cancels the turn.
        """
        route = await self.route(asked, tenant, door)
        wake = asyncio.Event()
        turn = self.begin(route, wake.set, is_live=is_live)
        feeding = asyncio.create_task(_feed(turn, text))
        feeding.add_done_callback(lambda _: wake.set())
        try:
            while not turn.is_over:
                if (item := turn.take()) is not None:
                    yield item
                    continue
                if feeding.done() and (failure := feeding.exception()) is not None:
                    raise failure
                wake.clear()
                await wake.wait()
        finally:
            if feeding.done() and not feeding.cancelled():
                feeding.exception()  # it was raised above, or the turn is over all the same
            feeding.cancel()
            turn.close()
            self.end(turn)

    async def converse(
        self,
        channel: Channel,
        tenant: str = "",
        defaults: wire.Configure | None = None,
        *,
        door: str = "stream-tokens",
    ) -> None:
        """Serve one client that speaks the protocol of ``/stream-tokens`` until it is gone."""
        if self._sockets >= self.limits.max_connections:
            error = BusyError(
                f"{self._sockets} sockets are open, as many as this server takes; come back later",
                code="too_many_connections",
            )
            await self.refuse(channel, error)
            return
        conversation = Conversation(self, tenant, defaults or wire.Configure(), door)
        self._conversations.add(conversation)
        self._sockets += 1
        self.metrics.connections.inc()
        try:
            resume = await conversation.run(channel)
            if resume is not None:
                await self._resume(resume, channel, tenant)
        finally:
            self._sockets -= 1
            self.metrics.connections.dec()

    async def refuse(self, channel: Channel, error: VoiceServerError) -> None:
        """Tell a client why it is not served, and close."""
        self.metrics.refused.labels(error.code).inc()
        with contextlib.suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(self.limits.send_deadline):
                await channel.send(json.dumps(wire.error_message(error)))
                await channel.close(error.close_code, error.code)

    async def _resume(self, resume: wire.Resume, channel: Channel, tenant: str) -> None:
        for conversation in self._conversations:
            if conversation.session == resume.session and conversation.tenant == tenant:
                self.parking.forget(conversation)
                try:
                    await conversation.resume(channel, resume.samples)
                except ResumeFailed as exc:
                    conversation.end(exc)
                    await self.refuse(channel, exc)
                return
        error = ResumeFailed(
            "no such session, or it was gone for longer than "
            f"{self.limits.resume_window:g} s; begin a new turn"
        )
        await self.refuse(channel, error)

    def keep(self, conversation: Conversation) -> None:
        """Its socket dropped: keep its turns for a while, for another socket."""
        self.parking.add(conversation, asyncio.get_running_loop().time())

    def forget(self, conversation: Conversation) -> None:
        self._conversations.discard(conversation)
        self.parking.forget(conversation)

    # -- time ------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        next_check = 0.0
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            try:
                for turn in list(self._turns):
                    if turn.route.is_batching and turn.is_working:
                        turn.pace()
                if now >= next_check:
                    next_check = now + 0.5
                    self._check(now)
            except Exception:
                logger.exception("the sweep failed; the next one is in %g s", SWEEP)

    def _check(self, now: float) -> None:
        for conversation in list(self._conversations):
            conversation.check(now)
        self.parking.expire(now)
        for turn in self._turns:
            playback = turn.session.delivery.playback
            if playback.has_started and turn.is_working:
                self.metrics.lead.labels(turn.route.backend).observe(playback.lead(now))


async def _feed(turn: Turn, text: str | AsyncIterable[str]) -> None:
    if isinstance(text, str):
        for start in range(0, len(text), FED_AT_ONCE):
            turn.post(wire.Token(text[start : start + FED_AT_ONCE]))
            await asyncio.sleep(0)
    else:
        async for token in text:
            turn.post(wire.Token(token))
    turn.post(wire.Done())
