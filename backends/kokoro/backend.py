"""Kokoro behind the worker's interface: 54 voices, and any mixture of them, in nine languages."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from interruption import Interruptible
from kokoro import KPipeline
from model import SAMPLE_RATE, load_model
from options import Options, speed
from readers import Reader, reader_of
from spellings import words_of
from voices import DEFAULT, LANGUAGES, Voices, code_of

import voice_worker as vw

WARM_UP = "Hello there."


class Kokoro(vw.Backend):
    name = "kokoro"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        chosen = Options.from_map(options)
        torch.set_num_threads(chosen.threads)
        self.model = load_model(chosen.model, chosen.device)
        self.interruptible = Interruptible(self.model)
        self.voices = Voices(chosen.model)
        self.readers: dict[str, Reader] = {}
        default = DEFAULT if DEFAULT in self.voices.names else self.voices.names[0]
        self.default = vw.Voice(speaker=default)
        for _ in self.synthesize(vw.Segment(WARM_UP, self.default)):
            pass  # the first call of every layer costs several times the next one
        return vw.BackendInfo(
            sample_rate=SAMPLE_RATE,
            languages=tuple(LANGUAGES.values()),
            speakers=self.voices.speakers(),
            default_speaker=default,
            speaker_pattern=self.voices.pattern(),
            options=("speed",),
            word_timing=True,
            device=str(self.model.device),
        )

    def synthesize(self, job: vw.Segment) -> Iterator[vw.Chunk | np.ndarray]:
        rate = speed(job.params.get("speed", 1.0))
        if job.voice.samples:
            raise vw.BackendError("kokoro cannot clone", code="unknown_voice")
        mixture = self.voices.mixture(job.voice.speaker or self.default.speaker or DEFAULT)
        code = code_of(job.params.get("language"), mixture[0].name)
        pack = self.voices.pack(mixture).to(self.model.device)
        reader = self.readers.get(code) or self.readers.setdefault(code, reader_of(code))
        torch.manual_seed(job.seed)
        seconds, char = 0.0, 0
        for piece in reader(job.text):
            infer = partial(KPipeline.infer, self.model, piece.phonemes, pack, rate)
            made = yield from self.interruptible.run(infer)
            if piece.tokens and made.pred_dur is not None:
                KPipeline.join_timestamps(piece.tokens, made.pred_dur)
            length = made.audio.numel() / SAMPLE_RATE
            words, char = words_of(piece.tokens, job.text, char, seconds, length)
            yield vw.Chunk(made.audio.reshape(-1).float().numpy(), words)
            seconds += length


if __name__ == "__main__":
    vw.serve(Kokoro())
