"""Crowds for the Qwen3-TTS engine, in real time: listeners arrive, play, and must not run dry."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voice_worker.backend import Voice

RATE = 24_000
# What the server lets a listener be ahead while others wait.
LEAD_SECONDS = 1.0
AUDIBLE = 10 ** (-50 / 20)


@dataclass
class Listener:
    """One turn as its listener lives it. Times are seconds of the clock of the run."""

    job: int
    arrival: float
    text: list[str]
    tokens_per_second: float | None
    seconds: float
    fed: int = 0
    runnable_since: float | None = None
    first_raw: float | None = None
    first_audible: float | None = None
    samples: int = 0
    underruns: int = 0
    _is_dry: bool = field(default=False, repr=False)

    def due_tokens(self, now: float) -> int:
        if self.tokens_per_second is None:
            return len(self.text)
        return min(len(self.text), 1 + int((now - self.arrival) * self.tokens_per_second))

    def lead(self, now: float) -> float:
        """Seconds of sound this listener holds and has not played."""
        return self.samples / RATE - (now - self.first_raw) if self.first_raw is not None else 0.0

    def wants(self, now: float) -> bool:
        return self.first_raw is None or self.lead(now) < LEAD_SECONDS

    def hear(self, samples: np.ndarray, now: float) -> None:
        if not len(samples):
            return
        if self.first_raw is None:
            self.first_raw = now
        elif self.lead(now) < 0:
            # Counted once for each time it runs dry.
            self.underruns += not self._is_dry
            self._is_dry = True
        else:
            self._is_dry = False
        if self.first_audible is None and np.abs(samples).max() > AUDIBLE:
            self.first_audible = now + int(np.argmax(np.abs(samples) > AUDIBLE)) / RATE
        self.samples += len(samples)

    @property
    def is_over(self) -> bool:
        return self.samples >= self.seconds * RATE


def words(count: int, random_: random.Random) -> list[str]:
    """Text as a language model emits it, a token and its space a piece."""
    return ["".join(random_.choice("abcdefgh") for _ in range(3)) + " " for _ in range(count)]


def poisson(rate: float, seconds: float, random_: random.Random) -> list[float]:
    """Open loop: arrivals do not wait for answers."""
    times, now = [], random_.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += random_.expovariate(rate)
    return times


def run(engine: Any, listeners: list[Listener], speaker: str, limit: float) -> list[Listener]:
    """Serve ``listeners`` in real time for at most ``limit`` seconds; those that got a slot."""
    waiting = sorted(listeners, key=lambda listener: listener.arrival)
    live: list[Listener] = []
    served: list[Listener] = []
    start = time.perf_counter()
    while (waiting or live) and (now := time.perf_counter() - start) < limit:
        while waiting and waiting[0].arrival <= now and len(live) < engine.slots:
            listener = waiting.pop(0)
            engine.admit(listener.job, Voice(speaker=speaker), {"language": "en"}, listener.job)
            live.append(listener)
            served.append(listener)
        for listener in live:
            if (due := listener.due_tokens(now)) > listener.fed:
                engine.feed(listener.job, "".join(listener.text[listener.fed : due]))
                listener.fed = due
        ready = [one for one in live if one.wants(now) and engine.is_runnable(one.job)]
        for listener in ready:
            if listener.runnable_since is None:
                listener.runnable_since = max(now, listener.arrival)
        if not ready:
            time.sleep(0.0002)
            continue
        outputs = engine.step([listener.job for listener in ready])
        now = time.perf_counter() - start
        for listener, output in zip(ready, outputs, strict=True):
            listener.hear(output.samples, now)
            if listener.is_over or output.is_finished or output.error:
                if not (output.is_finished or output.error):
                    engine.cancel(listener.job)
                live.remove(listener)
    for listener in live:
        engine.cancel(listener.job)
    return served


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    if not values:
        return {}
    return {f"p{p}": round(float(np.percentile(values, p)) * 1e3, 2) for p in (50, 95, 99)}


def ttfa(served: list[Listener]) -> dict[str, Any]:
    """Time to first audio, raw and audible, of those who heard something."""
    raw = [one.first_raw - one.arrival for one in served if one.first_raw is not None]
    audible = [one.first_audible - one.arrival for one in served if one.first_audible is not None]
    return {
        "heard": len(raw),
        "underruns": sum(one.underruns for one in served),
        "raw_ms": percentiles(raw),
        "audible_ms": percentiles(audible),
    }
