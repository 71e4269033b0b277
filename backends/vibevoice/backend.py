"""VibeVoice behind the worker's interface: dialogues in cloned voices, frame by frame."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from model import load
from options import LIMITS, Options, styled
from speech import speak
from voices import DEFAULT, LEAST, SAMPLE_RATE, Voices

import voice_worker as vw

WARM_UP = "Hi."


class VibeVoice(vw.Backend):
    name = "vibevoice"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        chosen = Options.from_map(options)
        torch.set_num_threads(chosen.threads)
        self.style = chosen.style
        self.model = load(chosen.model, torch.device(chosen.device), chosen.dtype)
        self.voices = Voices(self.model)
        # The first call of every layer costs several times the next one.
        next(speak(self.model, None, WARM_UP, 0, self.style), None)
        return vw.BackendInfo(
            sample_rate=SAMPLE_RATE,
            languages=("en", "zh"),
            speakers=(vw.Speaker(DEFAULT, "Default", "en"),),
            default_speaker=DEFAULT,
            clones=True,
            min_sample_seconds=LEAST,
            dialogue=True,
            options=tuple(LIMITS),
            device=str(self.model.net.device),
        )

    def prepare(self, voice: vw.Voice) -> None:
        self.voices.of(voice)

    def synthesize(self, job: vw.Segment) -> Iterator[np.ndarray]:
        style = styled(self.style, job.params)
        yield from speak(self.model, self.voices.of(job.voice), job.text, job.seed, style)


if __name__ == "__main__":
    vw.serve(VibeVoice())
