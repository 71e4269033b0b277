"""How fast a backend is, found out by itself while it loads."""

from __future__ import annotations

import time

from voice_worker import messages as m
from voice_worker.audio import SAMPLE_RATE
from voice_worker.backend import CallbackBackend, Chunk, Segment, Voice
from voice_worker.delivery import Delivery

ROUNDS = 3
TEXT = "The quick brown fox jumps over the lazy dog beside the river."


def measure_rtf(backend: CallbackBackend, sample_rate: int) -> float:
    """Seconds of work for one second of sound, for ``BackendInfo.rtf``.

    Speaks a sentence in the default voice, which warms the backend up, then some more by the clock;
    the quickest counts: the others had to share the processor. For backends that take milliseconds
    for it; what others need, their first listeners tell.
    """
    samples = _speak(backend, sample_rate)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        _speak(backend, sample_rate)
        times.append(time.perf_counter() - start)
    return min(times) * SAMPLE_RATE / max(1, samples)


def _speak(backend: CallbackBackend, sample_rate: int) -> int:
    """How many samples came of it, at 24 kHz."""
    job = m.Synthesize(0, 0, TEXT, {})
    delivery = Delivery(lambda *_: None, job, sample_rate, time.perf_counter(), credit=None)

    def sink(chunk: Chunk) -> bool:
        delivery.push(chunk.samples, chunk.words)
        return False

    backend.speak(Segment(TEXT, Voice()), sink)
    backend.rest()
    delivery.finish()
    return delivery.made
