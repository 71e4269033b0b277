"""The loop of a BatchBackend: take what arrived, step over the jobs that can run, send, repeat."""

from __future__ import annotations

from dataclasses import dataclass

from voice_worker import messages as m
from voice_worker.backend import BackendError, BackendInfo, BatchBackend, Step, Turn
from voice_worker.delivery import Delivery
from voice_worker.failure import describe
from voice_worker.pipe import Arrival, Pipe
from voice_worker.prompts import Prompts
from voice_worker.wire import voice_from_map


@dataclass
class _Job:
    delivery: Delivery
    is_text_ended: bool = False
    is_finished: bool = False  # by the backend; sound may still wait for credit


class BatchLoop:
    def __init__(
        self, backend: BatchBackend, info: BackendInfo, pipe: Pipe, prompts: Prompts
    ) -> None:
        self._backend, self._info, self._pipe, self._prompts = backend, info, pipe, prompts
        self._jobs: dict[int, _Job] = {}
        self._is_closing = False
        self._counted: dict[str, int] = {}

    def run(self) -> None:
        """Returns after a Shutdown, when the last job is over."""
        while self._jobs or not self._is_closing:
            runnable = self._runnable()
            self._take_arrivals(wait=not runnable)
            # A Cancel that just arrived takes its job out of the step that was about to be.
            if runnable := self._runnable():
                self._step(runnable)

    def _runnable(self) -> list[int]:
        return [
            number
            for number, job in self._jobs.items()
            if not job.is_finished and job.delivery.has_credit and self._backend.is_runnable(number)
        ]

    def _take_arrivals(self, *, wait: bool) -> None:
        if wait:
            self._take(self._pipe.get())
        for arrival in self._pipe.get_ready():
            self._take(arrival)

    def _take(self, arrival: Arrival) -> None:
        arrived, message = arrival
        match message:
            case m.Open() | m.Synthesize():
                self._admit(message, arrived)
            case m.Text() | m.EndText():
                self._feed(message)
            case m.Cancel():
                self._cancel(message.job)
            case m.Credit():
                self._grant(message)
            case m.Prepare():
                self._prompts.answer(message)
            case m.Shutdown():
                self._is_closing = True

    def _admit(self, message: m.Open | m.Synthesize, arrived: float) -> None:
        number = message.job
        credit = None if self._info.slots == 1 else 0
        rate, rounds = self._info.sample_rate, self._info.rounds
        delivery = Delivery(self._pipe.send, message, rate, arrived, credit, rounds=rounds)
        if self._pipe.is_cancelled(number):
            delivery.done(cancelled=True, counts=self._news())
            return
        is_admitted = False
        try:
            voice = voice_from_map(message.voice)
            self._prompts.ensure(voice)
            self._backend.admit(Turn(number, voice, message.params, message.seed))
            is_admitted = True
            if isinstance(message, m.Synthesize):
                self._backend.feed(number, message.text)
                self._backend.finish_text(number)
        except BaseException as exc:
            self._fail(number, delivery, exc, is_admitted=is_admitted)
        else:
            self._jobs[number] = _Job(delivery, is_text_ended=isinstance(message, m.Synthesize))

    def _feed(self, message: m.Text | m.EndText) -> None:
        if (job := self._jobs.get(message.job)) is None or job.is_finished:
            return
        try:
            if isinstance(message, m.Text):
                self._backend.feed(message.job, message.text)
            else:
                job.is_text_ended = True
                self._backend.finish_text(message.job)
        except BaseException as exc:
            del self._jobs[message.job]
            self._fail(message.job, job.delivery, exc, is_admitted=True)

    def _cancel(self, number: int) -> None:
        if (job := self._jobs.pop(number, None)) is None:
            return
        try:
            if not job.is_finished:
                self._backend.cancel(number)
        except BaseException as exc:
            self._fail(number, job.delivery, exc, is_admitted=False)
        else:
            job.delivery.done(cancelled=True, counts=self._news())

    def _grant(self, message: m.Credit) -> None:
        if (job := self._jobs.get(message.job)) is None:
            return
        job.delivery.grant(None if message.samples < 0 else message.samples)
        self._end_if_drained(message.job, job)

    def _step(self, runnable: list[int]) -> None:
        try:
            steps = self._backend.step(runnable)
        except BaseException as exc:
            for number in runnable:
                self._fail(number, self._jobs.pop(number).delivery, exc, is_admitted=True)
            return
        for step in steps:
            # A job that is no longer here ended by an earlier Step of this list.
            if (job := self._jobs.get(step.job)) is not None:
                self._deliver(step, job)

    def _deliver(self, step: Step, job: _Job) -> None:
        try:
            if step.error is not None:
                raise step.error
            job.delivery.push(step.samples, step.words)
            if step.is_finished:
                job.is_finished = True
                if not job.is_text_ended:
                    raise BackendError("the backend ended the job before its text was complete")
                job.delivery.finish()
        except BaseException as exc:
            del self._jobs[step.job]
            is_admitted = step.error is None and not step.is_finished
            self._fail(step.job, job.delivery, exc, is_admitted=is_admitted)
        else:
            self._end_if_drained(step.job, job)

    def _end_if_drained(self, number: int, job: _Job) -> None:
        if job.is_finished and job.delivery.is_drained:
            del self._jobs[number]
            job.delivery.done(cancelled=False, counts=self._news())

    def _news(self) -> dict[str, int]:
        """How much the backend's counts grew since this was asked last."""
        before, self._counted = self._counted, dict(self._backend.counts())
        return {
            name: total - before.get(name, 0)
            for name, total in self._counted.items()
            if total != before.get(name)
        }

    def _fail(
        self, number: int, delivery: Delivery, exc: BaseException, *, is_admitted: bool
    ) -> None:
        self._prompts.leave_if_lost(exc)
        if is_admitted:
            try:
                self._backend.cancel(number)
            except BaseException as second:
                exc.__context__ = second
                self._prompts.leave_if_lost(second)
        delivery.failed(describe(exc))
