"""Pocket TTS behind the worker's interface: a CPU is enough, and sound comes frame by frame."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from languages import Language, tag_of
from options import Options, temperature
from speech import speak

import voice_worker as vw

WARM_UP = "Hello there."


class PocketTTS(vw.Backend):
    name = "pocket_tts"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        chosen = Options.from_map(options)
        torch.set_num_threads(chosen.threads)
        self.temperature = chosen.temperature
        self.languages = {tag_of(name): Language.load(name, chosen) for name in chosen.languages}
        first = next(iter(self.languages.values()))
        if first.speakers:
            # The first call of every layer costs several times the next one.
            for _ in speak(first.model, first.voices.of(vw.Voice()), WARM_UP, seed=0):
                pass
        speakers = {
            speaker.id: speaker for one in self.languages.values() for speaker in one.speakers
        }
        return vw.BackendInfo(
            sample_rate=first.model.sample_rate,
            languages=tuple(self.languages),
            speakers=tuple(speakers.values()),
            default_speaker=first.default_speaker,
            clones=all(language.clones for language in self.languages.values()),
            options=("temperature",),
            device=str(first.model.device),
        )

    def prepare(self, voice: vw.Voice) -> None:
        # In the first language; in another one it is made when that is asked for.
        next(iter(self.languages.values())).voices.of(voice)

    def synthesize(self, job: vw.Segment) -> Iterator[np.ndarray]:
        language = self.language(job)
        heat = temperature(job.params.get("temperature"), self.temperature)
        yield from speak(language.model, language.voices.of(job.voice), job.text, job.seed, heat)

    def language(self, job: vw.Segment) -> Language:
        """What the client asks for, else what the speaker speaks, else the first."""
        wanted = job.params.get("language")
        if wanted is None:
            tags = (one.native_tag(job.voice.speaker) for one in self.languages.values())
            native = next((tag for tag in tags if tag in self.languages), None)
            return self.languages[native or next(iter(self.languages))]
        tag = str(wanted).replace("_", "-").partition("-")[0].lower()
        if tag not in self.languages:
            raise vw.BackendError(
                f"pocket_tts has {', '.join(self.languages)} loaded, not {wanted!r:.40}; it speaks"
                " en, fr, de, pt, it, es, nl: add it to options.languages in backends.yaml",
                code="unsupported_language",
            )
        return self.languages[tag]


if __name__ == "__main__":
    vw.serve(PocketTTS())
