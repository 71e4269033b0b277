"""Who speaks: from a voice, as the server names it, to the prompt its turns start from.

Reference recordings become a speaker embedding and, with a transcript, codes; both are kept beside
the samples as safetensors, under the digest of samples and transcripts.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import soundfile
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voice_worker.backend import BackendError, Sample, Voice
from voice_worker.failure import reason_of
from voice_worker.keeping import keep

from .loading import KINDS
from .options import LANGUAGES, EngineOptions, TurnOptions
from .prompts import Prompt, PromptKey, Prompts, Reference

log = logging.getLogger(__name__)

SAMPLE_RATE = 24_000
FORMAT = "qwen3-reference-2"
# Every second of reference is 12.5 positions of every turn's context, and text that has to be
# there before the first sound. One recording may be longer than several together; what is longer
# still would fill the context, and gives its speaker alone.
MAX_REFERENCE_SECONDS = 15.0
MAX_TRANSCRIBED_SECONDS = 60.0
MIN_SECONDS = 0.5


class Voices:
    """The voices a loaded model can speak in: its own, designed ones, or clones."""

    def __init__(self, model: Any, prompts: Prompts, options: EngineOptions) -> None:
        self.kind: str = model.config.tts_model_type
        self.takes_instructions = self.kind == "voice_design" or (
            self.kind == "custom_voice" and model.config.tts_model_size != "0b6"
        )
        self.speakers = list(prompts.speakers)
        known = model.config.talker_config.codec_language_id
        self.languages = [tag for tag, name in LANGUAGES.items() if name in known]
        if self.kind == "custom_voice" and not self.speakers:
            raise BackendError(
                "config.json names no speakers ('spk_id'); fetch the checkpoint again",
                code="model_incomplete",
            )
        self._prompts = prompts
        self._design = options.design
        self._references = References(model) if self.kind == "base" else None
        self.default = (options.speaker or next(iter(self.speakers), "")).lower() or None
        if self.default is not None and self.default not in self.speakers:
            raise BackendError(
                f"option 'speaker': this model has no {options.speaker!r}; it has "
                f"{', '.join(self.speakers) or 'no speakers of its own'}",
                code="bad_option",
            )

    def prompt(self, voice: Voice, options: TurnOptions) -> Prompt:
        """The prompt of ``voice`` in a turn's language. Raises BackendError for what cannot be."""
        if options.language not in ("auto", *map(LANGUAGES.get, self.languages)):
            raise BackendError(
                f"this model does not speak {options.language}; leave the language out",
                code="unsupported_language",
            )
        key = self._key(voice, options)
        if found := self._prompts.find(key):
            return found
        is_clone = self._references is not None
        return self._prompts.make(key, self._references.load(voice) if is_clone else None)

    def _key(self, voice: Voice, options: TurnOptions) -> PromptKey:
        if self.kind == "base":
            if not voice.samples:
                raise BackendError(
                    "this model has no voices of its own; choose a voice with a recording",
                    code="unknown_voice",
                )
            digest = voice.digest or repr([(str(s.path), s.transcript) for s in voice.samples])
            return PromptKey(options.language, voice=digest)
        if voice.samples:
            raise BackendError(
                f"a {KINDS[self.kind]} model cannot clone; use a Base model for this voice",
                code="unknown_voice",
            )
        if self.kind == "voice_design":
            # How a voice is and how it shall speak are one description to the model.
            said = " ".join(filter(None, (voice.design, options.instructions)))
            return PromptKey(options.language, instructions=said or self._design)
        speaker = (voice.speaker or self.default or "").lower()
        if speaker not in self.speakers:
            raise BackendError(
                f"no speaker {voice.speaker!r}; this model has {', '.join(self.speakers)}",
                code="unknown_voice",
            )
        said = options.instructions if self.takes_instructions else ""
        return PromptKey(options.language, speaker, instructions=said)


class References:
    """Makes references with the package's encoders, which only Base checkpoints have."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # An embedding only fits the model that made it: not another size, nor one trained further.
        self._suffix = f"qwen3-{_fingerprint(model.speaker_encoder)}"

    def load(self, voice: Voice) -> Reference:
        """The reference of a voice with samples, from its cache where there is one.

        Raises BackendError ``bad_sample``.
        """
        path = self._path(voice)
        if path is not None and (found := _read(path, voice.digest)):
            return found
        reference = self._make(voice.samples)
        if path is not None:
            _write(path, voice.digest, reference)
        return reference

    def _path(self, voice: Voice) -> Path | None:
        if voice.cache is None or not voice.digest:
            return None
        return Path(voice.cache) / f"{voice.digest}.{self._suffix}.safetensors"

    @torch.inference_mode()
    def _make(self, samples: tuple[Sample, ...]) -> Reference:
        sounds = [_read_sample(sample.path) for sample in samples]
        embeddings = [
            self._model.extract_speaker_embedding(sound, SAMPLE_RATE).float().cpu()
            for sound in sounds
        ]
        embedding = torch.stack(embeddings).mean(0)
        codes, texts, seconds = [], [], 0.0
        for sample, sound in zip(samples, sounds, strict=True):
            length = len(sound) / SAMPLE_RATE
            text = (sample.transcript or "").strip()
            limit = MAX_REFERENCE_SECONDS if codes else MAX_TRANSCRIBED_SECONDS
            if not text or seconds + length > limit:
                continue
            encoded = self._model.speech_tokenizer.encode(sound, sr=SAMPLE_RATE)
            codes.append(encoded.audio_codes[0].cpu())
            texts.append(text)
            seconds += length
        if not codes:
            return Reference(embedding.clone())
        return Reference(embedding.clone(), torch.cat(codes).clone(), " ".join(texts))


def _fingerprint(module: torch.nn.Module) -> str:
    """CRC-32 of its weights, the same for any dtype that holds them."""
    checksum = 0
    for tensor in module.state_dict().values():
        checksum = crc32(tensor.detach().float().cpu().contiguous().numpy(), checksum)
    return f"{checksum:08x}"


def _read_sample(path: Path) -> np.ndarray:
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as exc:
        why = f"sample {path.name} cannot be read: {reason_of(exc)}"
        raise BackendError(why, code="bad_sample") from exc
    mono = sound.mean(1)
    if rate != SAMPLE_RATE:
        raise BackendError(
            f"sample {path.name} is at {rate} Hz; convert it to {SAMPLE_RATE} Hz mono WAV",
            code="bad_sample",
        )
    if len(mono) < MIN_SECONDS * SAMPLE_RATE:
        raise BackendError(
            f"sample {path.name} lasts {len(mono) / rate:.1f} s; give at least {MIN_SECONDS} s, "
            "better 5 to 15 s",
            code="bad_sample",
        )
    if not np.isfinite(mono).all() or float(np.abs(mono).max()) < 1e-3:
        raise BackendError(f"sample {path.name} is silent or damaged", code="bad_sample")
    return np.ascontiguousarray(mono)


def _read(path: Path, digest: str) -> Reference | None:
    """The cached reference, or None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT or about.get("digest") != digest:
                return None
            codes = file.get_tensor("codes").long() if "codes" in file.keys() else None  # noqa: SIM118
            return Reference(file.get_tensor("embedding"), codes, about.get("text", ""))
    except (SafetensorError, OSError, KeyError) as exc:
        log.warning("cached voice %s is unusable and will be made again: %s", path.name, exc)
        return None


def _write(path: Path, digest: str, reference: Reference) -> None:
    tensors = {"embedding": reference.embedding}
    if reference.codes is not None:
        tensors["codes"] = reference.codes.to(torch.int32)
    about = {"format": FORMAT, "digest": digest, "text": reference.text}
    keep(path, lambda file: save_file(tensors, file, metadata=about))
