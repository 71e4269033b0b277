"""Babble: many jobs at once, spoken while their text arrives, one hum per word and no model.

Stands in for an engine on a GPU wherever scheduling is tested, and is the template for one.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from speech import Speech

from voice_worker import (
    BackendError,
    BackendInfo,
    BatchBackend,
    Speaker,
    Step,
    Turn,
    Voice,
    serve,
)

SPEAKERS = ("alto", "bass")


def fail_step() -> NoReturn:
    raise RuntimeError("the whole step failed")


# What words do with the option ``obeys``; ``fail`` ends its own job alone.
MISDEEDS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(7),
    "raise": fail_step,
    "hang": lambda: time.sleep(3600),
}


class Babble(BatchBackend):
    name = "babble"

    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        self.rate = int(options.get("sample_rate", 24_000))
        self.frame = round(self.rate * float(options.get("frame_ms", 80)) / 1000)
        self.step_seconds = float(options.get("step_ms", 0)) / 1000
        self.row_seconds = float(options.get("row_ms", 0)) / 1000
        self.prepare_seconds = float(options.get("prepare_ms", 0)) / 1000
        self.chars_per_second = float(options.get("chars_per_second", 15))
        self.is_obedient = bool(options.get("obeys", False))
        self.slots = int(options.get("slots", 32))
        self.jobs: dict[int, Speech] = {}
        self.frames = self.failures = 0
        return BackendInfo(
            sample_rate=self.rate,
            speakers=tuple(Speaker(name) for name in SPEAKERS),
            default_speaker=SPEAKERS[0],
            clones=True,
            designs=True,
            options=("speed",),
            word_timing=True,
            streams_text=True,
            slots=self.slots,
        )

    def prepare(self, voice: Voice) -> None:
        time.sleep(self.prepare_seconds)

    def admit(self, job: Turn) -> None:
        if len(self.jobs) >= self.slots:
            raise BackendError(f"all {self.slots} slots are taken", code="busy")
        if job.voice.speaker not in (None, *SPEAKERS):
            raise BackendError(
                f"no speaker {job.voice.speaker!r}: alto or bass", code="unknown_voice"
            )
        speed = job.params.get("speed", 1.0)
        if type(speed) not in (int, float) or not 0.25 <= speed <= 4.0:
            raise BackendError("speed must be a number from 0.25 to 4", code="bad_option")
        voice = job.voice.speaker or job.voice.digest or job.voice.design or SPEAKERS[0]
        self.jobs[job.job] = Speech(
            rate=self.rate,
            samples_per_char=round(self.rate / (self.chars_per_second * speed)),
            flavour=f"{job.seed}/{voice}",
        )

    def feed(self, job: int, text: str) -> None:
        self.jobs[job].feed(text)

    def finish_text(self, job: int) -> None:
        self.jobs[job].finish_text()

    def cancel(self, job: int) -> None:
        self.jobs.pop(job, None)

    def is_runnable(self, job: int) -> bool:
        return self.jobs[job].can_fill(self.frame)

    def step(self, runnable: Sequence[int]) -> list[Step]:
        time.sleep(self.step_seconds + self.row_seconds * len(runnable))
        self.frames += len(runnable)
        return [self.advance(job) for job in runnable]

    def counts(self) -> Mapping[str, int]:
        return {"frames": self.frames, "failures": self.failures}

    def advance(self, job: int) -> Step:
        speech = self.jobs[job]
        samples, ended = speech.take(self.frame)
        words = tuple(word for word, _ in ended)
        for order in (re.sub(r"\W", "", spelling).lower() for _, spelling in ended):
            if self.is_obedient and order == "fail":
                del self.jobs[job]
                self.failures += 1
                return Step(job, samples, error=BackendError("the model failed here"))
            if self.is_obedient and order in MISDEEDS:
                MISDEEDS[order]()
        if speech.is_finished:
            del self.jobs[job]
        return Step(job, samples, words, is_finished=speech.is_finished)


if __name__ == "__main__":
    serve(Babble())
