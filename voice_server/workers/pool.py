"""The workers of one backend, lent out job by job to the listener who will run dry first.

All of it happens in callbacks on the event loop's thread: a job costs no task, queue or timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from voice_server.core.errors import (
    BusyError,
    Draining,
    NotReady,
    RequestError,
    VoiceServerError,
    WorkerDied,
    WorkerStartError,
)
from voice_server.core.restart import BreakerState, RestartPolicy
from voice_server.core.schedule import SchedulePolicy
from voice_server.workers.job import SAMPLE_RATE, UNLIMITED, Job, JobState
from voice_server.workers.lending import Lending
from voice_server.workers.load import Capacity, Load
from voice_server.workers.process import WorkerSpec
from voice_server.workers.recovery import Recovery
from voice_server.workers.supervisor import Supervisor
from voice_server.workers.worker import RESUME_MISMATCH, Worker, failed_job_error
from voice_worker import messages as m
from voice_worker.backend import BackendInfo

logger = logging.getLogger(__name__)


class WorkerPool:
    """Create it anywhere; everything else must be called on the event loop's thread.

    ``spare``: workers beyond ``size`` that are kept warm. ``lead_limit``: a job that is due later
    than in so many seconds waits while anybody else does. ``patience``: seconds a job waits while
    no worker is ready. ``on_change``: called, soon, after slots, queue or readiness changed.
    ``info``: what its backend could do when it last ran. ``submitted``: jobs it was given.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        size: int,
        *,
        spare: int = 0,
        lead_limit: float = 10.0,
        patience: float = 30.0,
        schedule: SchedulePolicy | None = None,
        restart: RestartPolicy | None = None,
        info: BackendInfo | None = None,
    ) -> None:
        if size < 1 or spare < 0:
            raise ValueError("a pool has at least one worker, and no negative number of spares")
        self.spec = spec
        self.size = size
        self.spare = spare
        self.on_change: list[Callable[[], None]] = []
        self._patience = patience
        self._recovery = Recovery(spec.backend)
        self._load = Load()
        self._supervisor = Supervisor(spec, size, spare, self, self._sweep, restart)
        policy = schedule or SchedulePolicy(lead_limit=lead_limit)
        self._lending = Lending(self._supervisor, policy, self.cancel)
        self._info = info
        self.has_been_ready = False
        self._counts: Counter[str] = Counter()
        self.submitted = 0
        self.is_started = self._is_stopped = False
        self._is_change_due = False
        self._no_worker_since: float | None = None
        self._went_quiet = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------

    async def start(self, wait: bool = False) -> None:
        """Start all workers at once. ``wait``: return when they are ready.

        Raises WorkerStartError then, if they cannot be started; it goes on trying until ``stop``.
        """
        self.is_started = True
        self._loop = asyncio.get_running_loop()
        self._no_worker_since = self._loop.time()
        self._supervisor.start()
        if wait:
            await self._supervisor.wait_ready()

    async def wait_ready(self, timeout: float | None = None) -> None:
        """As ``start(wait=True)``, now or since. Raises NotReady after ``timeout``."""
        if not self.is_started:
            await self.start()
        await self._supervisor.wait_ready(timeout)

    async def drain(self, timeout: float) -> bool:
        """Wait until no job waits or runs. Returns False when that took longer than ``timeout``.

        Refuses nothing: the turns that go on need new segments.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._lending.is_quiet:
                    self._went_quiet.clear()
                    await self._went_quiet.wait()
        return self._lending.is_quiet

    async def stop(self, drain: float = 0.0) -> None:
        """Let jobs finish for ``drain`` seconds, fail the rest with Draining, end all workers."""
        if drain > 0.0:
            await self.drain(drain)
        self._is_stopped = True
        self._lending.fail_waiting(lambda _: _going_away())
        for job, _ in list(self._lending.running.values()):
            self._abort(job, _going_away())
        await self._supervisor.stop()

    async def restart(self) -> None:
        """Replace the workers one by one, each new one warm before an old one retires.

        Raises WorkerStartError when a new one does not start; then the old ones go on.
        """
        await self._supervisor.replace_all()

    async def prepare(self, voice: dict[str, Any]) -> None:
        """Have the prompt of ``voice`` made: by one worker, then, from its cache, by the others.

        Raises SynthesisFailed with the backend's code, NotReady, WorkerDied.
        """
        try:
            first = self._least_busy()
            await first.prepare(voice)
        except WorkerDied:
            first = self._least_busy()
            await first.prepare(voice)
        others = [w.prepare(voice) for w in self._supervisor.ready_workers if w is not first]
        # A worker that dies meanwhile prepares the voice when it first needs it.
        await asyncio.gather(*others, return_exceptions=True)

    # -- jobs -----------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Let the job be spoken: at once if a slot is free, else when its turn comes.

        Everything that goes wrong, at once or later, is told to ``job.sink.failed``.
        """
        self.submitted += 1
        job.number = self.submitted
        job.submitted_at = now = self._loop.time()
        if (refusal := self._refusal(job, now)) is not None:
            job.fail(refusal)
            return
        self._lending.offer(job, now)
        if self.waiting:
            self._lend()
        self._note_change()

    def cancel(self, job: Job) -> None:
        """Stop it, in whatever state. Nothing of it reaches its sink from now on."""
        if job.is_over:
            return
        job.state = JobState.OVER
        if (worker := self._lending.withdraw(job)) is not None:
            worker.cancel(job)
        self._note_change()
        self._note_quiet()

    def feed(self, job: Job, text: str) -> None:
        """More text of a job whose text is still being written. Raises ProtocolMistake."""
        if job.is_over or not text:
            return
        job.add_text(text)
        if refusal := self._recovery.refusal(job, self._loop.time()):
            self._abort(job, refusal)
        elif (worker := self._lending.worker_of(job)) is not None:
            worker.feed(job, text)

    def end_text(self, job: Job) -> None:
        """The text of the job is complete. Does nothing the second time."""
        if job.is_over or job.is_text_ended:
            return
        job.is_text_ended = True
        if (worker := self._lending.worker_of(job)) is not None:
            worker.end_text(job)

    def grant(self, job: Job, samples: int) -> None:
        """The job may have sent ``samples`` in all (-1: any number). Credit never shrinks."""
        if job.credit == UNLIMITED or (samples != UNLIMITED and samples <= job.credit):
            return
        job.credit = samples
        if (worker := self._lending.worker_of(job)) is not None:
            worker.grant(job)

    def confirm(self, job: Job) -> None:
        """A speculative job will be heard."""
        if job.is_speculative:
            job.is_speculative = False
            self._lending.waiting.reconsider(job, self._loop.time())
            self._lend()

    def reconsider(self, job: Job) -> None:
        """The due time of this job may have moved earlier."""
        self._lending.waiting.reconsider(job, self._loop.time())

    def poke(self) -> None:
        """Some listener's due time moved earlier: ask all of them again."""
        self._lending.waiting.refresh(self._loop.time())
        self._lend()

    # -- what others want to know ---------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """At least one worker is warm."""
        return bool(self._supervisor.ready_workers)

    @property
    def info(self) -> BackendInfo | None:
        """What the backend can do, or could when it last ran; None until a worker was ready."""
        return self._info

    @property
    def last_error(self) -> str:
        """Why the last worker went or did not start, with its last lines; "" when all is well."""
        return self._supervisor.last_error

    @property
    def slots(self) -> int:
        """Slots of all workers that take jobs."""
        return self._lending.slots

    @property
    def free_slots(self) -> int:
        return self._lending.free

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot."""
        return len(self._lending.waiting)

    @property
    def is_contended(self) -> bool:
        """Somebody waits: work that is not needed soon should not be submitted."""
        return self.waiting > 0

    def capacity(self) -> Capacity:
        """How many listeners this pool can serve, by what its last jobs cost."""
        return self._load.capacity(self.slots, is_paced=bool(self._info and self._info.slots > 1))

    def snapshot(self) -> dict[str, Any]:
        """Figures for /metrics and /ready."""
        supervisor = self._supervisor
        return {
            "backend": self.spec.backend,
            "workers": [worker.snapshot() for worker in supervisor.workers],
            "slots": self.slots,
            "free_slots": self.free_slots,
            "running": len(self._lending.running),
            "waiting": self.waiting,
            "restarts": dict(supervisor.restarts),
            "counts": dict(self._counts),
            "breaker": supervisor.breaker.value,
            "quarantined": len(self._recovery),
            "last_error": supervisor.last_error,
        }

    # -- told by the workers (worker.Owner) -----------------------------------------------------

    def worker_ready(self, worker: Worker) -> None:
        self._info, self.has_been_ready = worker.info, True
        self._load.assume(worker.info.rtf)
        self._supervisor.ready(worker)
        self._lend()

    def worker_gone(self, worker: Worker) -> None:
        if worker.cause == "killed":
            self._recovery.note_kill()
        self._supervisor.gone(worker)
        self._lend()

    def slot_freed(self, job: Job) -> None:
        self._lending.freed(job, self._loop.time())

    def job_finished(self, worker: Worker, job: Job, timing: Mapping[str, float]) -> None:
        if worker.finished == 1:
            self._supervisor.proved()
        if job.attempt == 1:
            seconds = job.delivered / SAMPLE_RATE
            self._load.add(perf_counter() - job.lent_at, seconds, timing.get("first"))
        self.slots_changed()

    def counted(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)

    def slots_changed(self) -> None:
        self._lend()
        self._note_quiet()

    def job_failed(self, worker: Worker, job: Job, failure: m.Failed) -> None:
        if failure.code == RESUME_MISMATCH:
            self._settle(job, self._recovery.after_mismatch(job, worker, self._loop.time()))
        else:
            logger.info("%s: job %d failed: %s", self.spec.backend, job.number, failure.code)
            logger.debug("job %d: %s\n%s", job.number, failure.error, failure.detail)
            job.fail(failed_job_error(failure))
        self._lend()
        self._note_quiet()

    def jobs_broken(self, worker: Worker, jobs: list[Job], weight: float) -> None:
        now = self._loop.time()
        living = [job for job in jobs if not job.is_over]
        for job, error in self._recovery.after_death(living, weight, worker.summary(), now):
            self._settle(job, error)
        self._lend()
        self._note_quiet()

    def sink_failed(self, job: Job) -> None:
        self.cancel(job)

    # -- inside ---------------------------------------------------------------------------------

    def _least_busy(self) -> Worker:
        workers = self._supervisor.ready_workers
        if not workers:
            raise self._not_ready()
        return max(workers, key=lambda worker: worker.free_slots - len(worker.jobs))

    def _refusal(self, job: Job, now: float) -> VoiceServerError | None:
        if self._is_stopped:
            return _going_away()
        if not self.is_ready and self._supervisor.breaker is BreakerState.OPEN:
            return self._not_ready()
        if job.is_streaming and self._info is not None and not self._info.streams_text:
            return RequestError(f"{self.spec.backend} speaks whole segments; give the job its text")
        return self._recovery.refusal(job, now)

    def _not_ready(self) -> VoiceServerError:
        reason = self._supervisor.last_error
        if self._supervisor.breaker is BreakerState.OPEN:
            error: VoiceServerError = WorkerStartError(reason)
            error.retry_after = max(self._supervisor.next_start - self._loop.time(), 1.0)
            return error
        return NotReady(reason or f"{self.spec.backend}: its workers are still loading")

    def _abort(self, job: Job, error: VoiceServerError) -> None:
        if (worker := self._lending.withdraw(job)) is not None:
            worker.cancel(job)
        job.fail(error)

    def _settle(self, job: Job, error: VoiceServerError | None) -> None:
        """A job whose attempt failed: let it wait for another one, or fail."""
        if job.is_over:
            return  # the failure of another one led its listener to cancel this one
        if error is None and self._is_stopped:
            error = _going_away()
        if error is not None:
            job.fail(error)
        elif not job.has_text_left:
            job.finish({})
        else:
            self._lending.offer(job, self._loop.time(), is_retry=True)

    def _lend(self) -> None:
        self._lending.lend(self._loop.time())
        self._note_change()

    def _sweep(self, now: float) -> None:
        if self.is_ready:
            self._no_worker_since = None
        elif self._no_worker_since is None:
            self._no_worker_since = now
        if not self.waiting:
            return
        since = self._no_worker_since
        is_open = self._supervisor.breaker is BreakerState.OPEN
        patience = self._patience

        def error(job: Job) -> VoiceServerError | None:
            if since is not None and (is_open or now - max(since, job.submitted_at) > patience):
                return self._not_ready()
            if job.deadline is not None and now >= job.deadline:
                return BusyError("no slot came free in time; ask again later")
            return None

        self._lending.fail_waiting(error)
        self._note_quiet()
        self._lend()

    def _note_change(self) -> None:
        if self.on_change and not self._is_change_due:
            self._is_change_due = True
            self._loop.call_soon(self._tell_change)

    def _tell_change(self) -> None:
        self._is_change_due = False
        for callback in list(self.on_change):
            callback()

    def _note_quiet(self) -> None:
        if self._lending.is_quiet:
            self._went_quiet.set()


def _going_away() -> Draining:
    return Draining("the server is shutting down; ask again later")
