"""Who is next: the listener who will run dry first, with fairness between tenants.

A stream that has not sounded yet is due ``start_grace`` after it came, so that newcomers are
served first come first served and a running listener about to run dry still goes before them.
A running stream is due when its lead ends. In this order:

    1. broken work, which is tried again
    2. work due within the lead limit, by due time; a tenant above its share of the slots is
       treated as if it were due a little later
    3. speculative work, which nobody may ever hear
    4. work due later than that: only so that no slot idles
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

NOT_STARTED: Final = -math.inf  # what ``due`` answers for a stream that has not sounded yet


class Work(Protocol):
    """What the schedule asks of a waiting job. Times are seconds of the caller's clock."""

    @property
    def tenant(self) -> str: ...

    @property
    def is_speculative(self) -> bool: ...

    @property
    def is_first(self) -> bool:
        """The first of its turn: its listener waits, and will hear no gap."""

    @property
    def due(self) -> Callable[[], float]:
        """When its listener runs dry, or NOT_STARTED."""


@dataclass(frozen=True, slots=True)
class SchedulePolicy:
    """``lead_limit``: nobody generates further ahead than this while others wait, in seconds.

    ``start_grace``: how long a newcomer yields to running listeners. ``handicap``: seconds that
    a tenant at twice its share is put back, up to four times that. ``memory``: seconds over which
    the use of slots is averaged.

    A slot is not taken back, so the next small request must find one free. While there are other
    tenants, or have been lately, so many slots are kept for them that they would find all of these
    taken in one case of fifty (``blocking``), by how many they have used. What is kept is at most
    half of all slots. With what is not the first of its turn, and may leave a gap if it is late, a
    tenant may hold ``tenant_slots`` of them.
    """

    lead_limit: float = 10.0
    start_grace: float = 0.02
    handicap: float = 0.5
    memory: float = 2.0
    tenant_slots: float = 0.75
    blocking: float = 0.02


T = TypeVar("T", bound=Work)


@dataclass(slots=True)
class _Entry(Generic[T]):
    work: T
    came: float
    number: int
    is_waiting: bool = True


_FORGOTTEN: Final = 0.01  # slots; an idle tenant that used less lately is not remembered

_Heap = list[tuple[float, int, _Entry[T]]]


@dataclass(slots=True)
class _Usage:
    """How many slots are held, and were on average over the last ``memory`` seconds."""

    memory: float
    as_of: float
    running: int = 0
    average: float = 0.0

    def at(self, now: float) -> float:
        """The average."""
        if now > self.as_of:
            kept = math.exp((self.as_of - now) / self.memory)
            self.average = self.running + (self.average - self.running) * kept
            self.as_of = now
        return self.average

    def change(self, running: int, now: float) -> None:
        self.at(now)
        self.running += running


@dataclass(slots=True)
class _Tenant(Generic[T]):
    usage: _Usage
    first: _Heap[T] = field(default_factory=list)
    following: _Heap[T] = field(default_factory=list)
    speculative: _Heap[T] = field(default_factory=list)

    @property
    def heaps(self) -> tuple[_Heap[T], ...]:
        return self.first, self.following, self.speculative


class Schedule(Generic[T]):
    """The waiting jobs of one pool. O(log n) a job, while due times only move later; a caller who
    knows that one moved earlier calls ``refresh``.

    Work that was popped holds a slot of its tenant until ``release``.
    """

    def __init__(self, policy: SchedulePolicy | None = None) -> None:
        self.policy = policy or SchedulePolicy()
        self.slots = 1
        self._tenants: dict[str, _Tenant[T]] = {}
        self._entries: dict[int, _Entry[T]] = {}
        self._retries: list[_Entry[T]] = []
        self._counter = 0
        self._usage = _Usage(self.policy.memory, 0.0)  # of all tenants

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, work: T) -> bool:
        return id(work) in self._entries

    def __iter__(self) -> Iterator[T]:
        return iter([entry.work for entry in self._entries.values()])

    def add(self, work: T, now: float, *, is_retry: bool = False) -> None:
        """Let ``work`` wait. ``is_retry``: it had a slot and lost it, not by its own fault."""
        self._counter += 1
        entry = _Entry(work, now, self._counter)
        self._entries[id(work)] = entry
        if is_retry:
            self._retries.append(entry)
        else:
            self._push(entry, now)

    def remove(self, work: T) -> bool:
        """Forget waiting work. Returns False when it was not waiting."""
        entry = self._entries.pop(id(work), None)
        if entry is None:
            return False
        # Its place in the heap is found when it comes to the top: removing it now costs O(n).
        entry.is_waiting = False
        if entry in self._retries:
            self._retries.remove(entry)
        return True

    def reconsider(self, work: T, now: float) -> None:
        """Speculative work became real, or the due time of this one moved earlier."""
        entry = self._entries.get(id(work))
        if entry is not None and entry not in self._retries:
            entry.is_waiting = False
            self._counter += 1
            moved = _Entry(work, entry.came, self._counter)
            self._entries[id(work)] = moved
            self._push(moved, now)

    def refresh(self, now: float) -> None:
        """Ask all waiting work again when it is due."""
        for tenant in self._tenants.values():
            for heap in tenant.heaps:
                heap[:] = [
                    (self._key(entry), entry.number, entry)
                    for _, _, entry in heap
                    if entry.is_waiting
                ]
                heapq.heapify(heap)

    def pop_next(self, now: float, fits: Callable[[T], bool] | None = None) -> T | None:
        """Take the work that should have the slot which is free at ``now``; None when none may.

        ``fits`` is asked about work that is tried again, which may need a slot of its own kind.
        """
        entry = self._next_retry(fits) or self._next_fair(now)
        if entry is None:
            return None
        work = entry.work
        entry.is_waiting = False
        del self._entries[id(work)]
        self.take(work.tenant, now)
        return work

    def take(self, tenant: str, now: float) -> None:
        """Count a slot that this tenant's work holds from now on."""
        self._tenant(tenant, now).usage.change(1, now)
        self._usage.change(1, now)

    def release(self, tenant: str, now: float) -> None:
        """A slot that this tenant's work held is free again."""
        self._tenant(tenant, now).usage.change(-1, now)
        self._usage.change(-1, now)

    def may_run_at_once(self, work: T, now: float) -> bool:
        """Nobody waits and the tenant is below its cap: new work need not be queued at all."""
        if self._entries:
            return False
        record = self._tenants.get(work.tenant)
        return record is None or not self._is_capped(record, work, now)

    def _tenant(self, name: str, now: float) -> _Tenant[T]:
        record = self._tenants.get(name)
        if record is None:
            record = self._tenants[name] = _Tenant(_Usage(self.policy.memory, now))
        return record

    def _push(self, entry: _Entry[T], now: float) -> None:
        record = self._tenant(entry.work.tenant, now)
        if entry.work.is_speculative:
            heap = record.speculative
        else:
            heap = record.first if entry.work.is_first else record.following
        heapq.heappush(heap, (self._key(entry), entry.number, entry))

    def _key(self, entry: _Entry[T]) -> float:
        due = entry.work.due()
        return entry.came + self.policy.start_grace if due == NOT_STARTED else due

    def _top(self, heap: _Heap[T]) -> tuple[float, int, _Entry[T]] | None:
        """The neediest entry of a heap. Keys that moved later are put right on the way."""
        while heap:
            key, number, entry = heap[0]
            if not entry.is_waiting:
                heapq.heappop(heap)
                continue
            fresh = self._key(entry)
            if fresh <= key:
                return heap[0]
            heapq.heapreplace(heap, (fresh, number, entry))
        return None

    def _next_retry(self, fits: Callable[[T], bool] | None) -> _Entry[T] | None:
        candidates = [e for e in self._retries if fits is None or fits(e.work)]
        if not candidates:
            return None
        best = min(candidates, key=lambda e: (e.work.is_speculative, self._key(e), e.number))
        self._retries.remove(best)
        return best

    def _next_fair(self, now: float) -> _Entry[T] | None:
        """The best of the tenants' neediest. O(tenants)."""
        found = []
        active = 0
        for name, record in list(self._tenants.items()):
            tops = [top for heap in record.heaps if (top := self._top(heap)) is not None]
            if tops or record.usage.running:
                active += 1
            elif record.usage.at(now) < _FORGOTTEN:
                del self._tenants[name]
            found += [
                (record, *top) for top in tops if not self._is_capped(record, top[2].work, now)
            ]
        if not found:
            return None
        share = self.slots / active
        best: tuple[tuple[int, float, float, int], _Entry[T]] | None = None
        for record, key, number, entry in found:
            penalty = 0.0
            if active > 1:
                excess = record.usage.at(now) / share - 1.0
                penalty = self.policy.handicap * min(max(excess, 0.0), 4.0)
            rank = 2 * (key - now > self.policy.lead_limit) + entry.work.is_speculative
            order = (rank, max(key, now) + penalty, key, number)
            if best is None or order < best[0]:
                best = order, entry
        return None if best is None else best[1]

    def _is_capped(self, record: _Tenant[T], work: T, now: float) -> bool:
        """Does this tenant hold all the slots that it may, for work like this?"""
        least = max(1, self.slots // 2)
        if len(self._tenants) < 2 or record.usage.running < least:
            return False
        others = self._usage.at(now) - record.usage.at(now)
        limit = max(least, self.slots - _slots_for(others, self.policy.blocking))
        if not work.is_first:
            limit = max(limit, int(self.slots * self.policy.tenant_slots))
        return record.usage.running >= limit


def _slots_for(load: float, blocking: float) -> int:
    """How many slots ``load`` of them on average needs to find all taken in so many cases of one.

    Erlang's loss formula, by its recursion: requests come by chance and do not wait.
    """
    slots, lost = 0, 1.0
    while lost > blocking:
        slots += 1
        lost = load * lost / (slots + load * lost)
    return slots
