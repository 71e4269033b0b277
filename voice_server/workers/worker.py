"""One worker of a pool: the handshake, the jobs in its slots, and the deadlines they have.

STARTING ─Ready→ READY ─retire→ RETIRING ─no job left→ STOPPING ─exit→ GONE
    └──────────────┴─────────────┴──── deadline, fault ────→ CONDEMNED ─exit→ GONE
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from voice_server.core.errors import SynthesisFailed, VoiceServerError, WorkerDied, WorkerError
from voice_server.core.poison import CRASH, KILLED
from voice_server.workers.deadlines import Deadlines
from voice_server.workers.job import SAMPLE_RATE, Job, text_messages
from voice_server.workers.process import Exit, WorkerProcess, WorkerSpec
from voice_worker import messages as m
from voice_worker.backend import BackendInfo
from voice_worker.protocol import LocalProtocolError
from voice_worker.wire import info_from_map

logger = logging.getLogger(__name__)

RESUME_MISMATCH: Final = "resume_mismatch"
DUMP_TIME: Final = 0.2  # for a hung worker to print its stacks before it is killed
TAIL_IN_ERRORS: Final = 10  # lines of stderr in a message for people
KNOWN_VOICES: Final = 64


class WorkerState(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    STOPPING = "stopping"
    CONDEMNED = "condemned"
    GONE = "gone"


class Owner(Protocol):
    """Who is told what happens to a worker. Called on the event loop's thread."""

    def worker_ready(self, worker: Worker) -> None: ...

    def worker_gone(self, worker: Worker) -> None:
        """The process was reaped; ``jobs_broken`` came before, if it had jobs."""

    def slot_freed(self, job: Job) -> None:
        """A job has left its slot, in whatever way; what follows says in which."""

    def job_finished(self, worker: Worker, job: Job, timing: Mapping[str, float]) -> None:
        """It was spoken to its end, and its sink knows."""

    def counted(self, counts: Mapping[str, int]) -> None:
        """This much more happened in the backend, by its own names."""

    def slots_changed(self) -> None:
        """After ``slot_freed`` of a cancelled job, and when a prompt is made."""

    def job_failed(self, worker: Worker, job: Job, failure: m.Failed) -> None:
        """The worker could not do this one and is well."""

    def jobs_broken(self, worker: Worker, jobs: list[Job], weight: float) -> None:
        """These were running when the worker was lost. ``weight`` as in ``core.poison``."""

    def sink_failed(self, job: Job) -> None:
        """The sink of this job raised."""


class Worker:
    """A worker from its start to its end. Raises WorkerStartError when it cannot be spawned."""

    def __init__(self, spec: WorkerSpec, owner: Owner) -> None:
        self.spec = spec
        self.info = BackendInfo(sample_rate=SAMPLE_RATE)
        self.state = WorkerState.STARTING
        self.jobs: dict[int, Job] = {}
        self.known_voices: dict[str, None] = {}
        self.finished = 0  # jobs
        self.loaded_mb = 0.0
        self.was_ready = False
        self.was_used = False
        self.is_spare = False
        self.reason = ""  # why it was condemned or went
        self.cause = ""  # the same in one word: hang, crash, cancel, memory, …
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._slots = 0
        self._cancelling: dict[int, Job] = {}
        self._requests: dict[int, asyncio.Future[None]] = {}
        self._counter = 0
        self._deadlines = Deadlines(spec)
        self._stopping = 0.0  # seconds since it was asked to go
        self._is_greeted = False
        self._is_refusal = False  # it said in its own words why it does not load
        self._dump_timer: asyncio.TimerHandle | None = None
        self.started_at = self._loop.time()
        self.condemned_at = 0.0
        self.process = WorkerProcess(spec, self._receive, self.condemn, self._exited)
        self.pid = self.process.pid

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def is_lending(self) -> bool:
        """It takes jobs, though maybe not now."""
        is_working = self.state is WorkerState.READY and not self.is_spare
        return is_working and not self.process.is_ending

    @property
    def free_slots(self) -> int:
        """Slots it would lend now. A cancelled job holds its slot until the worker answers."""
        is_busy = self._slots == 1 and self._requests  # making a prompt takes all of it
        if not self.is_lending or is_busy:
            return 0
        return self._slots - len(self.jobs) - len(self._cancelling)

    @property
    def is_idle(self) -> bool:
        return not (self.jobs or self._cancelling or self._requests)

    @property
    def age(self) -> float:
        return self._loop.time() - self.started_at

    def summary(self) -> str:
        """Why it went, for the listeners whose jobs it had."""
        return f"{self.spec.backend}: worker {self.pid} {self.reason}"

    def failure_text(self) -> str:
        """Why it went and what it printed last, for /ready and those who wait for its start."""
        lines = [] if self._is_refusal else list(self.process.stderr.tail)[-TAIL_IN_ERRORS:]
        return self.summary() + ("; it printed last: " + " | ".join(lines) if lines else "")

    def lend(self, job: Job) -> None:
        """Give the job a slot. Raises LocalProtocolError when its messages cannot be sent."""
        messages = job.begin_attempt(self._loop.time(), has_credit=self._slots > 1)
        self.jobs[job.number] = job
        try:
            self.process.send(*messages)
        except LocalProtocolError:
            del self.jobs[job.number]
            raise
        self._deadlines.heard()
        self.was_used = True
        if digest := job.voice.get("digest"):
            self.known_voices.pop(digest, None)
            self.known_voices[digest] = None
            if len(self.known_voices) > KNOWN_VOICES:
                del self.known_voices[next(iter(self.known_voices))]

    def cancel(self, job: Job) -> None:
        """Nothing of this job counts any more; its slot is free when the worker answers."""
        if self.jobs.pop(job.number, None) is not None:
            self._cancelling[job.number] = job
            self._deadlines.cancels.await_one(job.number)
            self._tell(job, m.Cancel(job.number))

    def feed(self, job: Job, text: str) -> None:
        """More text of a running job."""
        self._tell(job, *text_messages(job.number, text))

    def end_text(self, job: Job) -> None:
        self._tell(job, m.EndText(job.number))

    def grant(self, job: Job) -> None:
        """Tell the worker the credit that ``job`` has now."""
        if self._slots > 1 and (credit := job.credit_message()) is not None:
            self._tell(job, credit)

    def prepare(self, voice: dict[str, Any]) -> asyncio.Future[None]:
        """Have the prompt of a voice made. The future raises SynthesisFailed or WorkerDied."""
        self._counter += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._requests[self._counter] = future
        self._deadlines.prompts.await_one(self._counter)
        self.process.send(m.Prepare(self._counter, voice))
        return future

    def retire(self) -> None:
        """Take no more jobs; go when those it has are over."""
        if self.state is WorkerState.READY:
            self.state = WorkerState.RETIRING
            self._stop_when_idle()
        elif self.state is WorkerState.STARTING:
            self.stop()

    def stop(self) -> None:
        """Go now. What it still runs is lost; it has ``stop_timeout`` to go by itself."""
        if self.state in (WorkerState.CONDEMNED, WorkerState.STOPPING, WorkerState.GONE):
            return
        is_greeted = self.state is not WorkerState.STARTING or self._is_greeted
        self.state = WorkerState.STOPPING
        self.reason = self.reason or "was asked to stop"
        self.cause = self.cause or "stop"
        if is_greeted and self.is_idle:
            self.process.send(m.Shutdown())
        else:
            self.process.kill()

    def condemn(self, reason: str, *, cause: str = "protocol", is_hung: bool = False) -> None:
        """Give it up: its jobs go elsewhere now, it is killed. It never returns to the pool.

        ``is_hung``: let it print its stacks first.
        """
        if self.state in (WorkerState.CONDEMNED, WorkerState.GONE):
            return
        if self.state is WorkerState.STOPPING:
            self.process.kill()
            return
        self.reason, self.cause = reason, cause
        self.state = WorkerState.CONDEMNED
        self.condemned_at = self._loop.time()
        self.process.mute()
        logger.warning("%s: worker %d %s; killing it", self.spec.backend, self.pid, reason)
        if is_hung:
            self.process.ask_for_stacks()
            self._dump_timer = self._loop.call_later(DUMP_TIME, self.process.kill)
        else:
            self.process.kill()
        self._lose_jobs(0.0 if cause == "cancel" else CRASH)

    def check(self, dt: float) -> None:
        """Compare with every deadline. ``dt``: seconds since the last check, as they count."""
        match self.state:
            case WorkerState.STARTING:
                if self.age > self.spec.load_timeout:
                    limit = self.spec.load_timeout
                    self.condemn(f"was not ready within {limit:g} s", cause="load", is_hung=True)
            case WorkerState.READY | WorkerState.RETIRING:
                jobs, has_credit = self.jobs.values(), self._slots > 1
                overdue = self._deadlines.check(jobs, dt, has_credit=has_credit)
                if overdue is not None:
                    self.condemn(overdue.what, cause=overdue.cause, is_hung=True)
                elif self._deadlines.is_ping_due:
                    self._counter += 1
                    self._deadlines.pings.await_one(self._counter)
                    self.process.send(m.Ping(self._counter))
            case WorkerState.STOPPING:
                self._stopping += dt
                if self._stopping > self.spec.stop_timeout:
                    self.process.kill()

    def snapshot(self) -> dict[str, Any]:
        """Figures for /metrics and /ready."""
        return {
            "pid": self.pid,
            "state": "spare" if self.is_spare else self.state.value,
            "age": self.age,
            "jobs": len(self.jobs),
            "cancelling": len(self._cancelling),
            "slots": self._slots,
            "finished": self.finished,
            "resident_mb": self.process.resident_mb(),
        }

    def _tell(self, job: Job, *messages: m.Message) -> None:
        # A sink that hears a job's last sound may speak of it before its end, read with that
        # sound, is handed on.
        if self.process.is_open(job.number):
            self.process.send(*messages)

    def _receive(self, messages: Sequence[m.Message]) -> None:
        for message in messages:
            if self.state is WorkerState.CONDEMNED:
                return  # by what an earlier one of these led to
            if isinstance(message, m.Audio):
                job = self.jobs.get(message.job)
                if job is not None and not job.take_audio(message.pcm):
                    self._owner.sink_failed(job)
            elif isinstance(message, m.Done):
                self._done(message)
            elif isinstance(message, m.Words):
                if (job := self.jobs.get(message.job)) is not None:
                    job.take_words(message.words)
            else:
                self._receive_rarer(message)

    def _receive_rarer(self, message: m.Message) -> None:
        match message:
            case m.Failed(job=None, request=None):
                self.reason = f"could not load: {message.error}"
                self._is_refusal = message.code != "synthesis_failed"
            case m.Failed(job=int()):
                self._failed(message)
            case m.Failed(request=int(request)):
                error = SynthesisFailed(message.error, code=message.code)
                self._answer(request, error)
            case m.Prepared():
                self._answer(message.request, None)
            case m.Pong():
                self._deadlines.pings.came(message.nonce)
                self._deadlines.heard()
            case m.Hello():
                self._is_greeted = True
                if self.state is WorkerState.STARTING:
                    self.process.send(m.Load(dict(self.spec.options)))
            case m.Ready():
                self._ready(message.info)

    def _ready(self, info: Mapping[str, Any]) -> None:
        if self.state is not WorkerState.STARTING:
            return
        try:
            self.info = info_from_map(info)
        except ValueError as exc:
            self.condemn(f"sent a Ready that makes no sense: {exc}", cause="load")
            return
        self._slots = self.info.slots
        self.state = WorkerState.READY
        self.was_ready = True
        self.loaded_mb = self.process.resident_mb() or 0.0
        logger.info("%s: worker %d ready after %.2f s", self.spec.backend, self.pid, self.age)
        self._owner.worker_ready(self)

    def _done(self, message: m.Done) -> None:
        if message.counts:
            self._owner.counted(message.counts)
        job = self.jobs.pop(message.job, None)
        if job is None:
            self._cancel_answered(message.job)
            return
        self.finished += 1
        self._deadlines.heard()
        self._owner.slot_freed(job)
        job.finish(message.timing)
        self._owner.job_finished(self, job, message.timing)
        self._stop_when_idle()

    def _failed(self, message: m.Failed) -> None:
        assert message.job is not None
        job = self.jobs.pop(message.job, None)
        if job is None:
            self._cancel_answered(message.job)
            return
        self._deadlines.heard()
        self._owner.slot_freed(job)
        self._owner.job_failed(self, job, message)
        self._stop_when_idle()

    def _cancel_answered(self, number: int) -> None:
        job = self._cancelling.pop(number)
        self._deadlines.cancels.came(number)
        self._deadlines.heard()
        self._owner.slot_freed(job)
        self._owner.slots_changed()
        self._stop_when_idle()

    def _answer(self, request: int, error: VoiceServerError | None) -> None:
        future = self._requests.pop(request)
        self._deadlines.prompts.came(request)
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._owner.slots_changed()
        self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        if self.state is WorkerState.RETIRING and self.is_idle:
            self.stop()

    def _exited(self, exit: Exit) -> None:
        if self._dump_timer is not None:
            self._dump_timer.cancel()
        is_ours = self.state in (WorkerState.CONDEMNED, WorkerState.STOPPING)
        self.reason = self.reason or str(exit)
        self.cause = self.cause or ("crash" if self.was_ready else "load")
        if not is_ours and exit.is_from_outside:
            self.cause = "killed"
        self.state = WorkerState.GONE
        log = logger.info if is_ours else logger.warning
        log("%s: worker %d gone after %.1f s: %s", *(self.spec.backend, self.pid, self.age), exit)
        weight = 0.0 if is_ours else KILLED if exit.is_from_outside else CRASH
        self._lose_jobs(weight)
        self._owner.worker_gone(self)

    def _lose_jobs(self, weight: float) -> None:
        lost, self.jobs = list(self.jobs.values()), {}
        cancelled, self._cancelling = list(self._cancelling.values()), {}
        requests, self._requests = list(self._requests.values()), {}
        for job in (*lost, *cancelled):
            self._owner.slot_freed(job)
        for future in requests:
            if not future.done():
                future.set_exception(WorkerDied(self.summary()))
        if lost:
            self._owner.jobs_broken(self, lost, weight)


def failed_job_error(failure: m.Failed) -> WorkerError:
    """The error a client sees when a worker that is well could not speak a text."""
    error = SynthesisFailed(failure.error, code=failure.code)
    error.retryable = failure.code == "out_of_memory"
    return error
