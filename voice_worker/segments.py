"""The loop of a Backend: one segment after the other."""

from __future__ import annotations

from collections.abc import Iterator

from voice_worker import messages as m
from voice_worker.backend import Backend, BackendInfo, Chunk, Samples, Segment
from voice_worker.delivery import Delivery
from voice_worker.failure import describe
from voice_worker.pipe import Pipe
from voice_worker.prompts import Prompts
from voice_worker.wire import voice_from_map


class SegmentLoop:
    def __init__(self, backend: Backend, info: BackendInfo, pipe: Pipe, prompts: Prompts) -> None:
        self._backend, self._info, self._pipe, self._prompts = backend, info, pipe, prompts

    def run(self) -> None:
        """Returns after a Shutdown, when the job that was running is over."""
        while not isinstance((arrival := self._pipe.inbox.get())[1], m.Shutdown):
            arrived, message = arrival
            # A Cancel was heeded by the reader; Credit means nothing to a single slot.
            match message:
                case m.Synthesize():
                    self._speak(message, arrived)
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
        voice = voice_from_map(job.voice)
        self._prompts.ensure(voice)
        if self._pipe.is_cancelled(job.job):
            return True
        chunks = self._backend.synthesize(Segment(job.text, voice, job.params, job.seed))
        try:
            return self._deliver(job.job, chunks, delivery)
        finally:
            if (close := getattr(chunks, "close", None)) is not None:
                close()

    def _deliver(self, job: int, chunks: Iterator[Chunk | Samples], delivery: Delivery) -> bool:
        for chunk in chunks:
            if self._pipe.is_cancelled(job):
                return True
            if isinstance(chunk, Chunk):
                delivery.push(chunk.samples, chunk.words)
            else:
                delivery.push(chunk)
        delivery.finish()
        return False
