"""What listeners get of the Qwen3-TTS engine: first sound, a free slot, throughput, real time."""

from __future__ import annotations

import random
import time
from typing import Any

from qwen3_engine.engine import Engine

from bench import qwen3_load as load
from bench import qwen3_model
from voice_worker.backend import Voice

VOICE = Voice(speaker=qwen3_model.SPEAKER)
PARAMS = {"language": "en"}
# A frame takes a token, and here a token is a byte: more text than any of these turns needs.
TEXT = "".join(load.words(64, random.Random(0)))


class Listeners:
    """Measures on ``engine``, whose turns never end, by the sizes of ``plan``."""

    def __init__(self, engine: Engine, plan: dict[str, Any]) -> None:
        self.engine, self.plan = engine, plan

    def first_sounds(self) -> dict[str, float]:
        """From a turn with all its text to its first samples, nobody else speaking."""
        self._cancel_all()
        times = []
        for job in range(self.plan["repeats"] + 2):
            began = time.perf_counter()
            self.engine.admit(job, VOICE, PARAMS, job)
            self.engine.feed(job, TEXT)
            while not len(self.engine.step([job])[0].samples):
                pass
            times.append(time.perf_counter() - began)
            self.engine.cancel(job)
        # The first makes the voice's prompt.
        return load.percentiles(times[2:])

    def throughput(self) -> list[dict[str, float]]:
        """Seconds of audio a second, as fast as it goes, the whole step with its host included."""
        found = []
        for count in [count for count in self.plan["streams"] if count <= self.engine.slots]:
            self._admit(count)
            jobs = list(range(count))
            for _ in range(self.plan["repeats"] // 2):
                self.engine.step(jobs)
            samples, began = 0, time.perf_counter()
            for _ in range(self.plan["repeats"] * 2):
                samples += sum(len(out.samples) for out in self.engine.step(jobs))
            took = time.perf_counter() - began
            self._cancel_all()
            rate = samples / load.RATE / took
            found.append({"streams": count, "audio_seconds_per_second": round(rate, 1)})
        return found

    def cancels(self) -> dict[str, float]:
        """From a cancel, with a frame in flight, to the next turn in its slot."""
        engine, times = self.engine, []
        self._admit(engine.slots)
        for job in range(engine.slots, engine.slots + self.plan["repeats"]):
            engine.step(list(engine._streams))
            began = time.perf_counter()
            engine.cancel(job - engine.slots)
            engine.admit(job, VOICE, PARAMS, job)
            times.append(time.perf_counter() - began)
            engine.feed(job, TEXT)
        self._cancel_all()
        return {"turns_beside": engine.slots - 1, **load.percentiles(times)}

    def arrivals(self) -> list[dict[str, Any]]:
        """Time to first audio of listeners who come at random, their text all there."""
        found = []
        for rate in self.plan["rates"]:
            random_ = random.Random(rate)
            times = load.poisson(rate, self.plan["run_seconds"], random_)
            served = self._serve([(at, None) for at in times], random_)
            found.append({"per_second": rate, "turns": len(times), **load.ttfa(served)})
        return found

    def token_streams(self) -> list[dict[str, Any]]:
        """The same while a language model still writes, from the token that made sound possible."""
        found = []
        for rate in self.plan["token_rates"]:
            random_ = random.Random(rate)
            times = load.poisson(4, self.plan["run_seconds"] / 2, random_)
            served = self._serve([(at, rate) for at in times], random_)
            possible = [s.first_raw - s.runnable_since for s in served if s.first_raw]
            found.append(
                {
                    "tokens_per_second": rate,
                    "turns": len(times),
                    "from_possible_ms": load.percentiles(possible),
                    **load.ttfa(served),
                }
            )
        return found

    def crowds(self) -> list[dict[str, Any]]:
        """Listeners at once in real time, until some run dry."""
        found = []
        for count in [count for count in self.plan["crowds"] if count <= self.engine.slots]:
            random_ = random.Random(count)
            # Spread over a second: nobody's crowd arrives in one instant.
            times = [(random_.random(), None) for _ in range(count)]
            served = self._serve(times, random_)
            underruns = sum(listener.underruns for listener in served)
            found.append({"listeners": count, "underruns": underruns, **load.ttfa(served)})
            if underruns:
                break
        return found

    def _admit(self, count: int) -> None:
        self._cancel_all()
        for job in range(count):
            self.engine.admit(job, VOICE, PARAMS, job)
            self.engine.feed(job, TEXT)

    def _cancel_all(self) -> None:
        """Also of turns that a section left behind when it failed."""
        for job in list(self.engine._streams):
            self.engine.cancel(job)

    def _serve(
        self, arrivals: list[tuple[float, float | None]], random_: random.Random
    ) -> list[load.Listener]:
        self._cancel_all()
        seconds = self.plan["turn_seconds"]
        # A frame takes a token, and here a token is a byte: enough text for every frame.
        count = int(seconds * 12.5) + 2
        listeners = [
            load.Listener(job, at, load.words(count, random_), rate, seconds)
            for job, (at, rate) in enumerate(arrivals)
        ]
        limit = self.plan["run_seconds"] + 4 * seconds
        return load.run(self.engine, listeners, qwen3_model.SPEAKER, limit)
