"""Lends the slots of one backend's workers: who waits, who runs where, which worker for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from voice_server.core.errors import RequestError, VoiceServerError
from voice_server.core.schedule import Schedule, SchedulePolicy
from voice_server.workers.job import Job, JobState
from voice_server.workers.recovery import may_join
from voice_server.workers.worker import Worker
from voice_worker.protocol import LocalProtocolError


class Staff(Protocol):
    """Where the workers come from."""

    @property
    def workers(self) -> Sequence[Worker]: ...


class Lending:
    """``waiting``: jobs without a slot. ``running``: job number → the job and its worker.

    ``slots`` and ``free``: of the workers that take jobs now. ``give_up``: called with a job whose
    sink raised. Times are the loop's. Sinks called from here may call back into the pool.
    """

    def __init__(
        self, staff: Staff, policy: SchedulePolicy, give_up: Callable[[Job], None]
    ) -> None:
        self.waiting: Schedule[Job] = Schedule(policy)
        self.running: dict[int, tuple[Job, Worker]] = {}
        self.slots = 0
        self.free = 0
        self._staff = staff
        self._give_up = give_up
        self._is_lending = False

    @property
    def is_quiet(self) -> bool:
        """Nobody waits and nobody runs."""
        return not self.running and not len(self.waiting)

    def offer(self, job: Job, now: float, *, is_retry: bool = False) -> None:
        """Lend the job a slot, now or when its turn comes."""
        job.state = JobState.WAITING
        is_next = self.free > 0 and not is_retry and self.waiting.may_run_at_once(job, now)
        if is_next and (worker := self._worker_for(job)) is not None:
            self.waiting.take(job.tenant, now)
            self._give(job, worker, now)
        else:
            self.waiting.add(job, now, is_retry=is_retry)

    def lend(self, now: float) -> None:
        """Give free slots to those who need them most."""
        if self._is_lending:
            return
        self._is_lending = True
        try:
            self.count()
            while self.free > 0 and (job := self.waiting.pop_next(now, self._fits)) is not None:
                worker = self._worker_for(job)
                assert worker is not None
                self._give(job, worker, now)
        finally:
            self._is_lending = False

    def withdraw(self, job: Job) -> Worker | None:
        """Forget the job. Returns the worker that runs it and must be told."""
        if (running := self.running.pop(job.number, None)) is not None:
            return running[1]
        self.waiting.remove(job)
        return None

    def worker_of(self, job: Job) -> Worker | None:
        running = self.running.get(job.number)
        return None if running is None else running[1]

    def freed(self, job: Job, now: float) -> None:
        """The job's slot is free again."""
        self.running.pop(job.number, None)
        self.waiting.release(job.tenant, now)
        self.count()

    def fail_waiting(self, verdict: Callable[[Job], VoiceServerError | None]) -> None:
        """Fail those that wait and about whom ``verdict`` answers with an error."""
        for job in self.waiting:
            if (error := verdict(job)) is not None and self.waiting.remove(job):
                job.fail(error)

    def count(self) -> None:
        """Count slots anew, after a worker came, went or changed."""
        self.slots = self.free = 0
        for worker in self._staff.workers:
            if worker.is_lending:
                self.slots += worker.slots
                self.free += worker.free_slots
        self.waiting.slots = max(self.slots, 1)

    def _fits(self, job: Job) -> bool:
        return self._worker_for(job) is not None

    def _worker_for(self, job: Job) -> Worker | None:
        """The best worker with a free slot: one that knows the voice, then the least busy."""
        best, best_rank = None, (-1, -1)
        digest = job.voice.get("digest")
        for worker in self._staff.workers:
            free = worker.free_slots
            if free < 1 or not may_join(job, worker):
                continue
            rank = (int(digest in worker.known_voices) if digest else 0, free)
            if rank > best_rank:
                best, best_rank = worker, rank
        return best

    def _give(self, job: Job, worker: Worker, now: float) -> None:
        self.running[job.number] = (job, worker)
        try:
            worker.lend(job)
        except LocalProtocolError as exc:
            self.freed(job, now)
            job.fail(RequestError(f"this cannot be sent to a worker: {exc}"))
            return
        self.count()
        if not job.start():
            self._give_up(job)
