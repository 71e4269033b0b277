"""A pool and its listeners on a virtual clock, over the real schedule, playback and admission.

Seeded and without IO: the same arguments give the same history. Turns arrive at random; a model
writes their segments, uneven ones, over time; workers speak a segment each, without preemption,
and die now and then, in which case the segment is spoken again from its start, silently up to
where its listener was.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from voice_server.core.admission import Load, admit
from voice_server.core.errors import BusyError
from voice_server.core.playback import SAMPLE_RATE, Playback
from voice_server.core.schedule import NOT_STARTED, Schedule
from voice_server.core.sequencer import Sequencer
from voice_server.workers.load import Load as Cost

CHUNK = 0.1  # seconds of sound
LOOKAHEAD = 2


@dataclass(frozen=True)
class World:
    """``rate``: new turns a second. ``rtf``: slot-seconds per second of sound. ``lifetime``: mean
    seconds until a worker dies, 0 for never. ``tenants``: name → share of the arrivals.
    """

    slots: int = 4
    rtf: float = 0.2
    rate: float = 1.0
    seconds: float = 120.0
    first_chunk: float = 0.05
    respawn: float = 0.25
    lifetime: float = 0.0
    segments: tuple[int, int] = (2, 8)
    tenants: dict[str, float] = field(default_factory=lambda: {"": 1.0})
    has_admission: bool = True
    seed: int = 0


@dataclass
class Outcome:
    """What happened to everybody. Times are seconds."""

    admitted: int = 0
    refused: int = 0
    finished: int = 0
    underruns: int = 0
    deaths: int = 0
    ttfa: dict[str, list[float]] = field(default_factory=dict)


class _Segment:
    """Work for the schedule: one segment of one listener."""

    is_speculative = False

    def __init__(self, listener: _Listener, number: int, sound: float, cut_at: float) -> None:
        self.listener, self.number, self.sound, self.cut_at = listener, number, sound, cut_at
        self.tenant = listener.tenant
        self.is_first = number == 0
        self.delivered = 0.0
        self.lent_at = 0.0

    def due(self) -> float:
        return self.listener.due(self.number)


class _Listener:
    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.playback = Playback()
        self.sequencer: Sequencer[float] = Sequencer()
        self.waiting: list[_Segment] = []  # written by the model, not given to the schedule
        self.live: dict[int, _Segment] = {}
        self.unwritten = 0

    def due(self, number: int) -> float:
        if not self.playback.has_started:
            return NOT_STARTED
        before = [s for n, s in self.live.items() if n < number]
        return self.playback.dry_at + sum(s.sound - s.delivered for s in before)

    @property
    def is_over(self) -> bool:
        return not (self.unwritten or self.waiting or self.live)


class Simulation:
    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.outcome = Outcome()
        self._chance = random.Random(world.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._schedule: Schedule[_Segment] = Schedule()
        self._schedule.slots = world.slots
        self._free = world.slots
        self._listeners: set[_Listener] = set()
        # What each busy worker does; the number of an attempt makes late events void.
        self._running: dict[int, _Segment] = {}
        self._attempts = itertools.count()
        self._cost = Cost()

    def run(self) -> Outcome:
        self._at(0.0, self._arrive)
        if self.world.lifetime:
            self._at(self._until_death(), self._die)
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        return self.outcome

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen))

    # -- listeners -------------------------------------------------------------------------------

    def _arrive(self) -> None:
        world, chance = self.world, self._chance
        if (next_at := self.now + chance.expovariate(world.rate)) < world.seconds:
            self._at(next_at, self._arrive)
        [tenant] = chance.choices(list(world.tenants), list(world.tenants.values()))
        if world.has_admission:
            own = sum(other.tenant == tenant for other in self._listeners) if tenant else None
            rtf = self._cost.capacity(world.slots, is_paced=False).rtf
            try:
                admit(
                    Load(world.slots, len(self._listeners), rtf, tenant_turns=own),
                    backend="simulated",
                )
            except BusyError:
                self.outcome.refused += 1
                return
        self.outcome.admitted += 1
        listener = _Listener(tenant)
        self._listeners.add(listener)
        listener.unwritten = chance.randint(*world.segments)
        written_at = self.now
        for number in range(listener.unwritten):
            # Sentences are as uneven as people's: a median of 2.7 seconds, some of 12. A first
            # segment is a clause. The model writes twelve times as fast as anybody speaks.
            sound = min(12.0, chance.lognormvariate(1.0, 0.6)) if number else 1.5
            written_at += sound / 12
            segment = _Segment(listener, number, sound, written_at)
            self._at(written_at, lambda segment=segment: self._write(segment))  # type: ignore[misc]

    def _write(self, segment: _Segment) -> None:
        listener = segment.listener
        listener.unwritten -= 1
        listener.waiting.append(segment)
        self._offer(listener)

    def _offer(self, listener: _Listener) -> None:
        while listener.waiting and len(listener.live) < LOOKAHEAD:
            segment = listener.waiting.pop(0)
            listener.live[segment.number] = segment
            listener.sequencer.open(segment.number)
            self._schedule.add(segment, self.now)
        self._lend()

    # -- workers ---------------------------------------------------------------------------------

    def _lend(self) -> None:
        while self._free and (segment := self._schedule.pop_next(self.now)) is not None:
            self._free -= 1
            segment.lent_at = self.now
            attempt = next(self._attempts)
            self._running[attempt] = segment
            first = self.now + self.world.first_chunk
            chunks = int(segment.sound / CHUNK) + 1
            for index in range(1, chunks + 1):
                until = min(segment.sound, index * CHUNK)
                self._at(
                    first + until * self.world.rtf,
                    lambda attempt=attempt, until=until: self._yield(attempt, until),  # type: ignore[misc]
                )

    def _yield(self, attempt: int, until: float) -> None:
        segment = self._running.get(attempt)
        if segment is None:
            return  # its worker died
        listener = segment.listener
        if until > segment.delivered:
            listener.sequencer.push(segment.number, until - segment.delivered)
            segment.delivered = until
        if until >= segment.sound:
            del self._running[attempt]
            listener.sequencer.finish(segment.number)
            self._cost.add(self.now - segment.lent_at, segment.sound, None)
            self._release(segment)
        self._play(listener)
        if until >= segment.sound:
            self._offer(listener)

    def _release(self, segment: _Segment) -> None:
        self._schedule.release(segment.tenant, self.now)
        self._free += 1

    def _play(self, listener: _Listener) -> None:
        playback, outcome = listener.playback, self.outcome
        while (popped := listener.sequencer.pop()) is not None:
            number, sound = popped
            segment = listener.live[number]
            if sound is None:
                del listener.live[number]
                continue
            if not playback.has_started:
                waited = self.now - segment.cut_at
                outcome.ttfa.setdefault(listener.tenant, []).append(waited)
            # No engine speaks before its first chunk: until then nothing was owed.
            owed_since = segment.cut_at + self.world.first_chunk
            before = playback.underruns
            playback.send(round(sound * SAMPLE_RATE), self.now, owed_since)
            outcome.underruns += playback.underruns - before
        if listener.is_over and listener in self._listeners:
            outcome.finished += 1
            # It counts as a turn until its last sample was heard.
            self._at(max(self.now, playback.dry_at), lambda: self._listeners.discard(listener))

    def _until_death(self) -> float:
        return self.now + self._chance.expovariate(self.world.slots / self.world.lifetime)

    def _die(self) -> None:
        if self.now < self.world.seconds:
            self._at(self._until_death(), self._die)
        if not self._running:
            return
        attempt = self._chance.choice(sorted(self._running))
        segment = self._running.pop(attempt)
        self.outcome.deaths += 1
        self._schedule.release(segment.tenant, self.now)
        self._schedule.add(segment, self.now, is_retry=True)
        self._at(self.now + self.world.respawn, self._respawn)

    def _respawn(self) -> None:
        self._free += 1
        self._lend()
