"""When a worker may be started again: backoff after failed starts, and a breaker that ends them.

       ready                      too many failures in a window
┌───────────────┐   ┌───────────────────────────────────────────────┐
│               ▼   │                                               ▼
│            CLOSED ┘                                              OPEN
│                                                                   │ cool-down over
│   ready                                                           ▼
└──────────────────────────────────────────────────────────── HALF_OPEN
                                    one start; failed → OPEN, for twice as long
"""

from __future__ import annotations

import enum
import random
from collections import deque
from dataclasses import dataclass


class BreakerState(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Figures of the restarts. All times in seconds.

    ``barren_deaths``: so many workers in a row may become ready and die without having finished
    one job before that counts as failed starts. ``kills``: so many in a row may be killed from
    outside while they load before that does.
    """

    first_delay: float = 0.5
    longest_delay: float = 30.0
    failures: int = 5
    window: float = 60.0
    cool_down: float = 60.0
    longest_cool_down: float = 600.0
    barren_deaths: int = 4
    kills: int = 2


class Restart:
    """Keeps one backend's record of starts and says when the next one is due.

    Time comes in with every call, in seconds of any clock that does not jump.
    """

    def __init__(self, policy: RestartPolicy | None = None, *, seed: int | None = None) -> None:
        self.policy = policy or RestartPolicy()
        self.reason = ""
        self._jitter = random.Random(seed)
        self._failures: deque[float] = deque(maxlen=max(self.policy.failures, 1))
        self._row = 0  # failed starts since the last one that succeeded
        self._barren = 0
        self._killed = 0
        self._not_before = float("-inf")
        self._open_until: float | None = None
        self._openings = 0

    def state(self, now: float) -> BreakerState:
        """Whether starts are allowed at all, stopped, or on probation."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def is_suspicious(self) -> bool:
        """True while starts fail: then one worker is tried at a time, not all at once."""
        return self._row > 0 or self._open_until is not None

    @property
    def failures_in_a_row(self) -> int:
        """Starts that failed since one was ready."""
        return self._row

    def may_start(self, now: float, starting: int) -> bool:
        """May another worker be started, while ``starting`` of them are on their way already?"""
        if self.is_suspicious() and starting > 0:
            return False
        return now >= self.next_start

    @property
    def next_start(self) -> float:
        """The earliest time of the next start; minus infinity when there is nothing to wait for."""
        if self._open_until is not None:
            return max(self._open_until, self._not_before)
        return self._not_before

    def ready(self) -> None:
        """A worker has loaded its model: the cause of the failed starts is gone."""
        self._row = self._killed = 0
        self._not_before = float("-inf")
        if self._barren <= self.policy.barren_deaths:
            self._forget()

    def proved(self) -> None:
        """A worker has finished a job: whatever it was is over."""
        self._barren = 0
        if self._row == 0:
            self._forget()

    def failed(self, now: float, reason: str, *, was_killed: bool = False) -> None:
        """A worker ended before it was ready. ``was_killed``: from outside, which may be chance,
        but is also how a system that is short of memory refuses.
        """
        if was_killed and self._killed < self.policy.kills:
            self._killed += 1
            return
        self._row += 1
        self._failed(now, reason, self._row)

    def died(self, now: float, reason: str, *, is_barren: bool) -> None:
        """A ready worker is gone. ``is_barren``: through its own fault, with no job finished.

        A first death costs nothing: the next worker may start at once.
        """
        if not is_barren:
            return
        self._barren += 1
        excess = self._barren - self.policy.barren_deaths
        if excess > 0:
            self._failed(now, reason, excess)

    def _failed(self, now: float, reason: str, row: int) -> None:
        self.reason = reason
        self._failures.append(now)
        self._not_before = now + self._delay(row)
        if self._open_until is not None or self._are_too_many(now):
            doubled = self.policy.cool_down * 2.0 ** min(self._openings, 30)
            self._open_until = now + min(doubled, self.policy.longest_cool_down)
            self._openings += 1

    def _are_too_many(self, now: float) -> bool:
        full = len(self._failures) >= self.policy.failures
        return full and now - self._failures[0] <= self.policy.window

    def _delay(self, row: int) -> float:
        doubled = self.policy.first_delay * 2.0 ** min(row - 1, 30)
        # Jitter only lengthens nothing beyond the cap and never goes below half: workers of many
        # servers must not hit a shared disk together, and the first delay must stay a delay.
        return float(min(doubled, self.policy.longest_delay) * self._jitter.uniform(0.5, 1.0))

    def _forget(self) -> None:
        self._failures.clear()
        self._open_until = None
        self._openings = 0
        self.reason = ""
