"""Chatterbox, Turbo and classic, behind the worker's interface."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import package
import torch
import torch.nn.functional as F
from checkpoint import load
from conditioning import Conditioning, Conditionings
from options import Options, sampling_of
from sampling import SPEECH_TOKENS, TOKENS_PER_SECOND, classic, turbo

import voice_worker as vw
from voice_worker.devices import choose_device

log = logging.getLogger(__name__)

SPEAKER = "default"
# What Turbo's tokenizer has a token for. Of its other bracketed tokens ([angry], [narration]) no
# document says what they do.
SOUNDS = "clear throat, sigh, shush, cough, groan, sniff, gasp, chuckle, laugh".split(", ")
# Slow speech: so that a segment ends before its longest sound does.
CHARS_PER_SECOND = 10
NOTHING = np.zeros(0, np.float32)


class Chatterbox(vw.Backend):
    name = "chatterbox"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        given = dict(options)
        torch.set_num_threads(int(given.pop("threads", 1)))
        device = choose_device(given.pop("device", "auto"))
        self.model = load(str(given.pop("model", "turbo")), device)
        self.is_turbo = isinstance(self.model, package.ChatterboxTurboTTS)
        self.options = Options.of("turbo" if self.is_turbo else "classic", given)
        self.voices = Conditionings(self.model)
        has_voice = self.voices.builtin is not None
        added = self.model.tokenizer.get_added_vocab() if self.is_turbo else {}
        return vw.BackendInfo(
            sample_rate=self.model.sr,
            languages=("en",),
            speakers=(vw.Speaker(SPEAKER, "Chatterbox", "en"),) if has_voice else (),
            default_speaker=SPEAKER if has_voice else None,
            clones=True,
            min_sample_seconds=self.voices.min_seconds,
            tags=tuple(sound for sound in SOUNDS if f"[{sound}]" in added),
            options=tuple(self.options.defaults),
            max_chars=int(self.options.defaults["max_seconds"] * CHARS_PER_SECOND),
            device=device,
        )

    def prepare(self, voice: vw.Voice) -> None:
        if voice.samples:
            self.voices.of(voice)

    def synthesize(self, job: vw.Segment) -> Iterator[np.ndarray]:
        asked = self.options.asked(job.params)
        voice = self.conditioning(job.voice)
        if not job.text.strip():
            return
        torch.manual_seed(job.seed)
        prompt = voice.for_t3(asked.get("exaggeration", 0.0))
        sample, sampling = turbo if self.is_turbo else classic, sampling_of(asked)
        tokens: list[int] = []
        with torch.inference_mode():
            for token in sample(self.model.t3, prompt, self.tokens(job.text), sampling):
                tokens.append(token)
                if len(tokens) % TOKENS_PER_SECOND == 0:
                    # No sound yet, but a point where it can be cancelled.
                    yield NOTHING
            if len(tokens) == sampling.limit:
                log.warning("cut after %g s: raise max_seconds", asked["max_seconds"])
            yield NOTHING
            yield self.sound([token for token in tokens if token < SPEECH_TOKENS], voice)

    def tokens(self, text: str) -> torch.Tensor:
        """The text's ids, int64 [1, n], cut where the model's own limit is."""
        if self.is_turbo:
            ids = self.model.tokenizer(
                package.turbo_text(text), return_tensors="pt", truncation=True
            )
            return ids.input_ids.to(self.model.device)
        t3 = self.model.t3.hp
        ids = self.model.tokenizer.text_to_tokens(package.classic_text(text))[
            :, : t3.max_text_tokens
        ]
        ids = F.pad(F.pad(ids, (1, 0), value=t3.start_text_token), (0, 1), value=t3.stop_text_token)
        return ids.to(self.model.device)

    def sound(self, tokens: list[int], voice: Conditioning) -> np.ndarray:
        """float32 samples, watermarked. The watermark spans the segment, so it comes whole."""
        if self.is_turbo:
            tokens = tokens + [package.S3GEN_SIL] * 3
        elif not tokens:
            return NOTHING
        wave, _ = self.model.s3gen.inference(
            speech_tokens=torch.tensor(tokens, device=self.model.device),
            ref_dict=voice.for_decoder(),
            n_cfm_timesteps=2 if self.is_turbo else None,
        )
        samples = wave.squeeze(0).cpu().numpy()
        marked = self.model.watermarker.apply_watermark(samples, sample_rate=self.model.sr)
        return marked.astype(np.float32, copy=False)

    def conditioning(self, voice: vw.Voice) -> Conditioning:
        if voice.samples:
            return self.voices.of(voice)
        if self.voices.builtin is None or voice.speaker not in (None, SPEAKER):
            has = SPEAKER if self.voices.builtin else "none of its own"
            raise vw.BackendError(
                f"chatterbox has no voice {voice.speaker!r}; it has {has}: choose a voice with a"
                " recording",
                code="unknown_voice",
            )
        return self.voices.builtin


if __name__ == "__main__":
    vw.serve(Chatterbox())
