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
    def due(self) -> Callable[[], float]:
        """When its listener runs dry, or NOT_STARTED."""


@dataclass(frozen=True, slots=True)
class SchedulePolicy:
    """``lead_limit``: nobody generates further ahead than this while others wait, in seconds.

    ``start_grace``: how long a newcomer yields to running listeners. ``handicap``: seconds that
    a tenant at twice its share is put back, up to four times that. ``memory``: seconds over which
    the use of slots is averaged. ``tenant_slots``: the part of all slots, one at least, that a
    tenant may hold while there are others or have been lately: a slot is not taken back, so the
    next small request must find one free.
    """

    lead_limit: float = 10.0
    start_grace: float = 0.02
    handicap: float = 0.5
    memory: float = 2.0
    tenant_slots: float = 0.75


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
class _Tenant(Generic[T]):
    """One tenant's waiting work and its use of slots, averaged."""

    ordinary: _Heap[T] = field(default_factory=list)
    speculative: _Heap[T] = field(default_factory=list)
    running: int = 0
    use: float = 0.0
    as_of: float = 0.0

    def used(self, now: float, memory: float) -> float:
        if now > self.as_of:
            self.use = self.running + (self.use - self.running) * math.exp(
                (self.as_of - now) / memory
            )
            self.as_of = now
        return self.use


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
            for heap in (tenant.ordinary, tenant.speculative):
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
        tenant = self._tenant(work.tenant, now)
        tenant.used(now, self.policy.memory)
        tenant.running += 1
        return work

    def take(self, tenant: str, now: float) -> None:
        """Count a slot that was lent without waiting."""
        record = self._tenant(tenant, now)
        record.used(now, self.policy.memory)
        record.running += 1

    def release(self, tenant: str, now: float) -> None:
        """A slot that this tenant's work held is free again."""
        record = self._tenant(tenant, now)
        record.used(now, self.policy.memory)
        record.running -= 1

    def may_run_at_once(self, tenant: str) -> bool:
        """Nobody waits and the tenant is below its cap: new work need not be queued at all."""
        record = self._tenants.get(tenant)
        return not self._entries and (record is None or not self._is_capped(record))

    def _tenant(self, name: str, now: float) -> _Tenant[T]:
        record = self._tenants.get(name)
        if record is None:
            record = self._tenants[name] = _Tenant(as_of=now)
        return record

    def _push(self, entry: _Entry[T], now: float) -> None:
        record = self._tenant(entry.work.tenant, now)
        heap = record.speculative if entry.work.is_speculative else record.ordinary
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
            ordinary, speculative = self._top(record.ordinary), self._top(record.speculative)
            if ordinary or speculative or record.running:
                active += 1
            elif record.used(now, self.policy.memory) < _FORGOTTEN:
                del self._tenants[name]
            found += [(record, top) for top in (ordinary, speculative) if top is not None]
        tops = [(record, top) for record, top in found if not self._is_capped(record)]
        if not tops:
            return None
        share = self.slots / active
        best: tuple[tuple[int, float, float, int], _Entry[T]] | None = None
        for record, (key, number, entry) in tops:
            penalty = 0.0
            if active > 1:
                excess = record.used(now, self.policy.memory) / share - 1.0
                penalty = self.policy.handicap * min(max(excess, 0.0), 4.0)
            rank = 2 * (key - now > self.policy.lead_limit) + entry.work.is_speculative
            order = (rank, max(key, now) + penalty, key, number)
            if best is None or order < best[0]:
                best = order, entry
        return None if best is None else best[1]

    def _is_capped(self, record: _Tenant[T]) -> bool:
        limit = max(1, int(self.slots * self.policy.tenant_slots))
        return len(self._tenants) > 1 and record.running >= limit
