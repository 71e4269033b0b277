"""Tone: a backend without a model, one beep per word. The template for a new backend."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pitch

import voice_worker as vw

RATE, SPEAKERS = 22_050, {"low": 220.0, "high": 440.0}


class Tone(vw.Backend):
    name = "tone"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        self.seconds = float(options.get("seconds_per_word", 0.05))
        self.prompts: dict[str, float] = {}
        return vw.BackendInfo(
            sample_rate=RATE,
            speakers=tuple(vw.Speaker(name) for name in SPEAKERS),
            default_speaker="low",
            clones=True,
            tags=("laugh",),
            dialogue=True,
            options=("speed",),
            word_timing=True,
            rtf=vw.measure_rtf(self, RATE),
        )

    def prepare(self, voice: vw.Voice) -> None:
        if voice.samples and voice.digest not in self.prompts:
            found = [pitch.of_file(sample.path) for sample in voice.samples]
            self.prompts[voice.digest] = float(np.mean(found))

    def synthesize(self, job: vw.Segment) -> Iterator[vw.Chunk]:
        speed = job.params.get("speed", 1.0)
        if type(speed) not in (int, float) or not 0.25 <= speed <= 4.0:
            raise vw.BackendError("speed must be a number from 0.25 to 4", code="bad_option")
        seconds = np.arange(round(RATE * self.seconds / speed)) / RATE
        fade = np.minimum(1.0, np.minimum(seconds, seconds[::-1]) * 400.0)
        for count, word in enumerate(re.finditer(r"\S+", job.text)):
            hertz = self.pitch(job.voice) * (2.0 if word[0] == "[laugh]" else 1.0)
            beep = (0.3 * fade * np.sin(2.0 * np.pi * hertz * seconds)).astype(np.float32)
            start, end = count * len(beep) / RATE, (count + 1) * len(beep) / RATE
            yield vw.Chunk(beep, (vw.Word(word.start(), word.end(), start, end),))

    def pitch(self, voice: vw.Voice) -> float:
        if voice.samples:
            return self.prompts[voice.digest]
        if (speaker := voice.speaker or "low") not in SPEAKERS:
            raise vw.BackendError(f"no speaker {speaker!r}: low or high", code="unknown_voice")
        return SPEAKERS[speaker]


if __name__ == "__main__":
    vw.serve(Tone())
