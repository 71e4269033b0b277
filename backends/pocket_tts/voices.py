"""What a voice is to the model: the keys and values after it has heard the sample.

Computed once, kept in memory, and for cloned voices on disk beside the samples.
"""

from __future__ import annotations

import logging
import wave
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from pocket_tts import TTSModel, export_model_state
from pocket_tts.data.audio import audio_read
from pocket_tts.modules.stateful_module import ModelState, init_states
from safetensors import SafetensorError

from voice_worker import BackendError, Sample, Voice
from voice_worker.failure import reason_of
from voice_worker.keeping import keep

log = logging.getLogger(__name__)

# Seconds of a voice's samples. The package cuts at 30 as well: more makes every frame slower.
LEAST, MOST = 1.0, 30.0
# A state of 30 s weighs 18 MB, or 74 MB with 24 layers.
KEPT = 24


class Voices:
    """The voices of one language. ``find`` gives the file of a speaker's state."""

    def __init__(
        self,
        model: TTSModel,
        name: str,
        default: str | None,
        find: Callable[[str], Path],
        speakers: Collection[str],
    ) -> None:
        self._model, self._default, self._find = model, default, find
        self._speakers = frozenset(speakers)
        self._states: OrderedDict[str, ModelState] = OrderedDict()
        # The weights that need no login come with an encoder of zeros.
        self.clones = any(bool(p.any()) for p in model.mimi.encoder.parameters())
        weight = model.flow_lm.speaker_proj_weight.detach().cpu().contiguous()
        self._suffix = f"pocket_tts-{name}-{zlib.crc32(weight.numpy().tobytes()):08x}"

    def of(self, voice: Voice) -> ModelState:
        """Raises BackendError: unknown_voice, bad_sample, model_missing."""
        key = voice.digest if voice.samples else voice.speaker or self._default or ""
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key]
        state = self._clone(voice) if voice.samples else self._speaker(key)
        self._states[key] = state
        if len(self._states) > KEPT:
            self._states.popitem(last=False)
        return state

    def _speaker(self, name: str) -> ModelState:
        if name not in self._speakers:
            raise BackendError(
                f"pocket_tts has no voice {name!r:.60}: {', '.join(sorted(self._speakers))}",
                code="unknown_voice",
            )
        path = self._find(name)
        if (state := self._read(path)) is None:
            raise BackendError(f"{path} is damaged: fetch it again", code="model_incomplete")
        return state

    def _clone(self, voice: Voice) -> ModelState:
        if not self.clones:
            raise BackendError(
                "these weights cannot clone: accept the terms at"
                " https://huggingface.co/kyutai/pocket-tts and log in with `hf auth login`",
                code="unknown_voice",
            )
        path = None
        if voice.cache is not None and voice.digest:
            path = Path(voice.cache) / f"{voice.digest}.{self._suffix}.safetensors"
            if path.is_file() and (state := self._read(path)) is not None:
                return state
        state = self._model.get_state_for_audio_prompt(self._sound(voice.samples))
        if path is not None:
            keep(path, lambda file: export_model_state(state, file))
        return state

    def _read(self, path: Path) -> ModelState | None:
        """None where it cannot be used: cut short, or of a model of another shape."""
        try:
            state = self._model.get_state_for_audio_prompt(path)
            if _shape(state) == _shape(init_states(self._model.flow_lm, 1, sequence_length=1)):
                return state
            log.warning("the voice in %s is of another model", path.name)
        except (SafetensorError, OSError, KeyError, ValueError) as exc:
            log.warning("the voice in %s is unusable: %s", path.name, exc)
        return None

    def _sound(self, samples: tuple[Sample, ...]) -> torch.Tensor:
        """[1, samples] in [-1, 1], cut at the longest that is of use. Raises ``bad_sample``."""
        rate, parts = self._model.sample_rate, []
        for sample in samples:
            try:
                sound, given = audio_read(sample.path)
            except (OSError, EOFError, wave.Error) as exc:
                raise _bad(f"{sample.path.name} cannot be read: {reason_of(exc)}") from exc
            if given != rate:
                raise _bad(f"{sample.path.name} is at {given} Hz, not {rate}")
            parts.append(sound)
        whole = torch.cat(parts, dim=-1)[..., : int(MOST * rate)]
        seconds = whole.shape[-1] / rate
        if seconds < LEAST:
            raise _bad(f"it lasts {seconds:.1f} s; give at least {LEAST:.0f} s, better 10 to 30 s")
        if float(whole.abs().max()) < 1e-3:
            raise _bad("it is silent")
        return whole


def _shape(state: ModelState) -> dict[str, list[int]]:
    """Of each layer's keys and values, but for how many there are."""
    return {
        name: [n for axis, n in enumerate(part["cache"].shape) if axis != 2]
        for name, part in state.items()
    }


def _bad(what: str) -> BackendError:
    return BackendError(f"nothing can be made of the sample: {what}", code="bad_sample")
