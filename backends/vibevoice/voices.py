"""What a voice is to the model: the latents of its recordings. Computed once, kept in memory, and
on disk beside the samples.
"""

from __future__ import annotations

import logging
import wave
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from model import Model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from voice_worker import BackendError, Sample, Voice
from voice_worker.failure import reason_of
from voice_worker.keeping import keep

log = logging.getLogger(__name__)

DEFAULT = "default"
SAMPLE_RATE = 24_000
# Seconds of a voice's samples. Each is 7.5 positions that every segment begins with.
LEAST, MOST = 1.0, 30.0
# Of 30 s they weigh 60 KB.
KEPT = 256


class Voices:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        weight = model.net.model.audio_tower.encoder.head.conv.weight.detach().float().cpu()
        self._suffix = f"vibevoice-{zlib.crc32(weight.numpy().tobytes()):08x}"

    def of(self, voice: Voice) -> torch.Tensor | None:
        """float32 [frames, latent]; None is the voice that the model invents.

        Raises BackendError: unknown_voice, bad_sample, sample_too_short.
        """
        if not voice.samples:
            if voice.speaker in (None, DEFAULT):
                return None
            raise BackendError(
                f"vibevoice has no voice {voice.speaker!r:.60}, only {DEFAULT!r} and clones: drop a"
                " recording of it into voice_samples/",
                code="unknown_voice",
            )
        if (found := self._kept.get(voice.digest)) is None:
            found = self._kept[voice.digest] = self._clone(voice)
        self._kept.move_to_end(voice.digest)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _clone(self, voice: Voice) -> torch.Tensor:
        path = None
        if voice.cache is not None and voice.digest:
            path = Path(voice.cache) / f"{voice.digest}.{self._suffix}.safetensors"
            if (found := self._read(path)) is not None:
                return found
        latents = self._hear(_sound(voice.samples))
        if path is not None:
            keep(path, lambda file: save_file({"latents": latents}, file))
        return latents

    @torch.no_grad()
    def _hear(self, sound: np.ndarray) -> torch.Tensor:
        """As the package does, but for the noise that it adds: a voice stays what it is."""
        net, extractor = self._model.net, self._model.processor.feature_extractor
        made = extractor([sound], sampling_rate=SAMPLE_RATE).to(net.device)
        values, mask = made["input_values"].to(net.dtype), made["padding_mask"]
        latents = net.model.get_audio_features(values, mask, sample=False).last_hidden_state
        return latents.float().cpu().contiguous()

    def _read(self, path: Path) -> torch.Tensor | None:
        """None where there is none, or one that cannot be used."""
        if not path.is_file():
            return None
        try:
            found = load_file(path)["latents"]
            if (
                found.dim() == 2
                and found.shape[1] == self._model.net.config.audio_config.hidden_size
            ):
                return found
            log.warning("the voice in %s is of another model", path.name)
        except (SafetensorError, OSError, KeyError) as exc:
            log.warning("the voice in %s is unusable and is made again: %s", path.name, exc)
        return None


def _sound(samples: tuple[Sample, ...]) -> np.ndarray:
    """float32 in [-1, 1], cut at the longest that is of use."""
    whole = np.concatenate([_read_wave(sample.path) for sample in samples])
    whole = whole[: int(MOST * SAMPLE_RATE)]
    seconds = len(whole) / SAMPLE_RATE
    if seconds < LEAST:
        raise BackendError(
            f"the voice's recordings last {seconds:.1f} s: give at least {LEAST:.0f} s, better 10"
            " to 30 s",
            code="sample_too_short",
        )
    if float(np.abs(whole).max()) < 1e-3:
        raise _bad("it is silent")
    return whole


def _read_wave(path: Path) -> np.ndarray:
    """The server hands over 16-bit mono at 24 kHz."""
    try:
        with wave.open(str(path), "rb") as file:
            if (kind := file.getparams()[:3]) != (1, 2, SAMPLE_RATE):
                raise _bad(f"{path.name} has {kind[0]} channels, {8 * kind[1]} bits, {kind[2]} Hz")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("f4") / 32768
    except (OSError, EOFError, ValueError, wave.Error) as exc:
        raise _bad(f"{path.name} cannot be read: {reason_of(exc)}") from exc


def _bad(what: str) -> BackendError:
    return BackendError(f"nothing can be made of the sample: {what}", code="bad_sample")
