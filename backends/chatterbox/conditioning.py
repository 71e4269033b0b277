"""What a cloned voice is to Chatterbox: made of its recordings once, and kept as safetensors.

The package keeps it as a mutable field of the model, and on disk as a pickle. Here it is a value.
"""

from __future__ import annotations

import io
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
import torch
from package import ChatterboxTurboTTS, Model, T3Cond
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voice_worker.backend import BackendError, Sample, Voice
from voice_worker.failure import reason_of
from voice_worker.keeping import keep

log = logging.getLogger(__name__)

FORMAT = "chatterbox-conditioning-1"
SAMPLE_RATE = 24_000
# Turbo refuses shorter recordings; what classic makes of less than a second is nobody's voice.
MIN_SECONDS = {"turbo": 5.0, "classic": 1.0}
# The voice encoder hears all of it, the two others the first 15 and 10 seconds.
MAX_SECONDS = 60.0
KEPT = 64


@dataclass(frozen=True)
class Conditioning:
    """``speaker``: float [1, 256], ``prompt``: int64 [1, n] speech tokens, both for T3.
    ``decoder``: tensors by the names that S3Gen gives them.
    """

    speaker: torch.Tensor
    prompt: torch.Tensor
    decoder: dict[str, torch.Tensor]

    @classmethod
    def from_package(cls, made: Any) -> Conditioning:
        tensors = {name: value for name, value in made.gen.items() if torch.is_tensor(value)}
        return cls(made.t3.speaker_emb, made.t3.cond_prompt_speech_tokens, tensors)

    def for_t3(self, exaggeration: float) -> T3Cond:
        """A fresh one for each segment: T3 writes into it."""
        emotion = exaggeration * torch.ones(1, 1, 1, device=self.speaker.device)
        return T3Cond(
            speaker_emb=self.speaker, cond_prompt_speech_tokens=self.prompt, emotion_adv=emotion
        )

    def for_decoder(self) -> dict[str, Any]:
        """As ``for_t3``: S3Gen casts the entries of the map it is given."""
        return {"prompt_feat_len": None, **self.decoder}


class Conditionings:
    """Makes, keeps and finds them, by the digest of the voice."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kind = "turbo" if isinstance(model, ChatterboxTurboTTS) else "classic"
        self._kept: OrderedDict[str, Conditioning] = OrderedDict()
        self.builtin = model.conds and Conditioning.from_package(model.conds)

    @property
    def min_seconds(self) -> float:
        """A voice's recordings have to last longer than this together."""
        return MIN_SECONDS[self._kind]

    def of(self, voice: Voice) -> Conditioning:
        """That of a voice with samples. Raises BackendError: bad_sample, sample_too_short."""
        if (found := self._kept.get(voice.digest)) is None:
            path = voice.cache and Path(voice.cache) / f"{self._kind}.safetensors"
            found = path and _read(path, voice.digest, self._model.device)
            if not found:
                found = self._make(voice.samples)
                if path:
                    _write(path, voice.digest, found)
            self._kept[voice.digest] = found
        self._kept.move_to_end(voice.digest)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    @torch.inference_mode()
    def _make(self, samples: tuple[Sample, ...]) -> Conditioning:
        sound = np.concatenate([_sound(sample.path) for sample in samples])
        if len(sound) <= self.min_seconds * SAMPLE_RATE:
            raise BackendError(
                f"the voice's recordings last {len(sound) / SAMPLE_RATE:.1f} s; Chatterbox needs"
                f" more than {self.min_seconds:g} s of speech: record a longer sample",
                code="sample_too_short",
            )
        model, before = self._model, self._model.conds
        file = io.BytesIO()
        try:
            if isinstance(model, ChatterboxTurboTTS):
                # By itself it would multiply by a float64, which its encoders do not take.
                sound = model.norm_loudness(sound, SAMPLE_RATE).astype(np.float32)
            soundfile.write(file, sound, SAMPLE_RATE, format="WAV", subtype="FLOAT")
            file.seek(0)
            if isinstance(model, ChatterboxTurboTTS):
                model.prepare_conditionals(file, norm_loudness=False)
            else:
                model.prepare_conditionals(file)
            return Conditioning.from_package(model.conds)
        finally:
            model.conds = before


def _sound(path: Path) -> np.ndarray:
    """float32, mono, 24 kHz."""
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as exc:
        why = f"sample {path.name} cannot be read: {reason_of(exc)}"
        raise BackendError(why, code="bad_sample") from exc
    mono = sound.mean(1)[: round(MAX_SECONDS * rate)]
    if not np.isfinite(mono).all() or float(np.abs(mono).max(initial=0.0)) < 1e-3:
        raise BackendError(f"sample {path.name} is silent or damaged", code="bad_sample")
    if rate != SAMPLE_RATE:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=SAMPLE_RATE)
    return np.ascontiguousarray(mono, np.float32)


def _read(path: Path, digest: str, device: str) -> Conditioning | None:
    """The kept one, or None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device=device) as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT or about.get("digest") != digest:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Conditioning(tensors.pop("t3.speaker"), tensors.pop("t3.prompt"), tensors)
    except (SafetensorError, OSError, KeyError) as exc:
        log.warning("prepared voice %s is unusable and will be made again: %s", path, exc)
        return None


def _write(path: Path, digest: str, made: Conditioning) -> None:
    tensors = {"t3.speaker": made.speaker, "t3.prompt": made.prompt, **made.decoder}
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    about = {"format": FORMAT, "digest": digest}
    keep(path, lambda file: save_file(contiguous, file, metadata=about))
