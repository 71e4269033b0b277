"""Skeleton: one beep per word, until a model takes its place."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import voice_worker as vw

RATE = 24_000
SPEAKERS = {"low": 220.0, "high": 440.0}


class Skeleton(vw.Backend):
    name = "skeleton"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        # Import and load the model here, and let it say a word, so that the first listener does
        # not wait for that. `options` is what backends.yaml says; BackendError refuses, and its
        # message names what to download, where to, and the option that points there.
        self.seconds = float(options.get("seconds_per_word", 0.1))
        return vw.BackendInfo(
            sample_rate=RATE,
            languages=("en",),
            speakers=tuple(vw.Speaker(name, language="en") for name in SPEAKERS),
            default_speaker="low",
            options=("speed",),
        )

    def synthesize(self, job: vw.Segment) -> Iterator[vw.Chunk]:
        speed = job.params.get("speed", 1.0)
        if type(speed) not in (int, float) or not 0.25 <= speed <= 4.0:
            raise vw.BackendError("speed must be a number from 0.25 to 4", code="bad_option")
        if (speaker := job.voice.speaker or "low") not in SPEAKERS:
            raise vw.BackendError(f"no speaker {speaker!r}: low or high", code="unknown_voice")
        # Draw every random number from here, and a worker that dies is never heard.
        chance = np.random.default_rng(job.seed)
        time = np.arange(round(RATE * self.seconds / speed)) / RATE
        for _ in job.text.split():
            hertz = SPEAKERS[speaker] * chance.uniform(0.95, 1.05)
            # Yield early and often: at each yield a listener may interrupt.
            beep = 0.3 * np.sin(2 * np.pi * hertz * time)
            yield vw.Chunk(beep.astype(np.float32))


if __name__ == "__main__":
    vw.serve(Skeleton())
