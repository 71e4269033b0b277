"""The loop of a Backend: one segment after the other."""

from __future__ import annotations

from voice_worker import messages as m
from voice_worker.backend import BackendInfo, CallbackBackend, Chunk, Segment
from voice_worker.delivery import Delivery
from voice_worker.failure import describe
from voice_worker.pipe import Pipe
from voice_worker.prompts import Prompts
from voice_worker.wire import voice_from_map


class SegmentLoop:
    def __init__(
        self, backend: CallbackBackend, info: BackendInfo, pipe: Pipe, prompts: Prompts
    ) -> None:
        self._backend, self._info, self._pipe, self._prompts = backend, info, pipe, prompts

    def run(self) -> None:
        """Returns after a Shutdown, when the job that was running is over."""
        while not isinstance((arrival := self._pipe.get())[1], m.Shutdown):
            arrived, message = arrival
            # A Cancel is heeded within its job; Credit means nothing to a single slot.
            match message:
                case m.Synthesize():
                    self._speak(message, arrived)
                    self._backend.rest()
                case m.Prepare():
                    self._prompts.answer(message)

    def _speak(self, job: m.Synthesize, arrived: float) -> None:
        delivery = Delivery(self._pipe.send, job, self._info.sample_rate, arrived, credit=None)
        try:
            cancelled = self._synthesize(job, delivery)
        except BaseException as exc:  # also the SystemExit of a library that cannot download
            self._prompts.leave_if_lost(exc)
            delivery.failed(describe(exc))
        else:
            delivery.done(cancelled=cancelled)

    def _synthesize(self, job: m.Synthesize, delivery: Delivery) -> bool:
        """Returns whether it was cancelled."""
        cancelled = False

        def sink(chunk: Chunk) -> bool:
            nonlocal cancelled
            if cancelled := cancelled or self._pipe.is_cancelled(job.job):
                return True
            delivery.push(chunk.samples, chunk.words)
            return False

        voice = voice_from_map(job.voice)
        self._prompts.ensure(voice)
        if self._pipe.is_cancelled(job.job):
            return True
        self._backend.speak(Segment(job.text, voice, job.params, job.seed), sink)
        if not cancelled:
            delivery.finish()
        return cancelled
