"""The deadlines that the server keeps for a worker: the only proof that it makes progress.

Time is summed up step by step and a step is never long, so that a held-up event loop or a machine
that slept does not look like a worker that hangs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voice_server.workers.job import SAMPLE_RATE, Job
from voice_server.workers.process import WorkerSpec


@dataclass(frozen=True, slots=True)
class Overdue:
    """What the worker did not do in time, for people, and in one word, for metrics."""

    what: str
    cause: str


class Answers:
    """Answers the worker owes, by number, and for how long it has."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seconds: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._seconds)

    def await_one(self, number: int) -> None:
        self._seconds[number] = 0.0

    def came(self, number: int) -> None:
        self._seconds.pop(number, None)

    def clear(self) -> None:
        self._seconds.clear()

    def is_late(self, dt: float) -> bool:
        """Let ``dt`` pass. True when one of them has been owed for longer than the limit."""
        for number in self._seconds:
            self._seconds[number] += dt
        return any(seconds > self._limit for seconds in self._seconds.values())


class Deadlines:
    """Those of one worker. ``cancels``, ``prompts``, ``pings``: what it has still to answer."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self.cancels = Answers(spec.cancel_timeout)
        self.prompts = Answers(spec.prepare_timeout)
        self.pings = Answers(spec.ping_timeout)
        self._quiet = 0.0

    @property
    def is_ping_due(self) -> bool:
        """It has had nothing to do and said nothing for the ping interval."""
        return self._quiet > self._spec.ping_interval and not self.pings

    def heard(self) -> None:
        """The worker has given a sign of life."""
        self._quiet = 0.0

    def check(self, jobs: Iterable[Job], dt: float, *, has_credit: bool) -> Overdue | None:
        """Let ``dt`` pass for everything that the worker owes."""
        if self.cancels.is_late(dt):
            return Overdue("did not answer a cancel", "cancel")
        if self.prompts.is_late(dt):
            return Overdue("did not make a prompt in time", "hang")
        is_idle = not self.cancels and not self.prompts
        for job in jobs:
            is_idle = False
            if (overdue := self._check_job(job, dt, has_credit)) is not None:
                return overdue
        if is_idle:
            self._quiet += dt
            if self.pings.is_late(dt):
                return Overdue("did not answer a ping", "hang")
        return None

    def _check_job(self, job: Job, dt: float, has_credit: bool) -> Overdue | None:
        if not job.owes_sound(has_credit=has_credit):
            job.quiet = 0.0
            return None
        job.quiet += dt
        job.active += dt
        # An attempt that resumes makes what was delivered again before it can sound.
        again = job.delivered / SAMPLE_RATE
        if job.has_sounded:
            if job.quiet > self._spec.gap_timeout:
                return Overdue(f"stopped sounding for {job.quiet:.1f} s within a job", "hang")
        elif job.quiet > self._spec.first_chunk_timeout + again:
            return Overdue(f"made no sound for {job.quiet:.1f} s after a job began", "hang")
        if job.active > self._spec.job_timeout + again:
            return Overdue(f"took {job.active:.0f} s over one job", "hang")
        return None
