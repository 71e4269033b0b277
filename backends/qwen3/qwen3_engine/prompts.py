"""What stands before the text: role, language, speaker, instructions, reference speech.

A prompt does not depend on the text, so its keys and values are computed once per voice and
copied into a slot. Layout, following the package's ``generate`` in streaming mode:

    text  <instructions> assistant: pad  pad  pad  pad  pad  bos │ reference text … │ text …
    code        –            –     think open lang close spkr pad │ bos, its codes …  │ frames …
          └────────────────────── cached ────────────────────────┴─────┘ bridge
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voice_worker.backend import BackendError

from .codec import CodecState
from .model import Talker
from .runners import CodecRunner, sent_to
from .slots import Slots
from .text import TextEncoder

# All prompts together may hold as many positions as so many slots: 0.9 GB of a 1.7B model. Long
# instructions, another text in every turn, would else fill what memory_fraction leaves.
KEPT_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Reference:
    """What is known of a cloned voice. ``embedding`` [H]; ``codes`` [T, groups] where there is a
    transcript, ``text``, to go with them.
    """

    embedding: Tensor
    codes: Tensor | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where a piece starts. ``memory`` holds keys and values, [layers, 2, kv_heads, length, D].

    ``bridge`` [b, H] are code-side inputs that still want a text token each; ``lead`` are text
    tokens that go before the turn's own; ``carry`` [H] is the code side of the first frame.
    """

    memory: Tensor
    carry: Tensor
    bridge: Tensor
    lead: tuple[int, ...] = ()
    codec: CodecState | None = None

    @property
    def length(self) -> int:
        return self.memory.shape[3]


@dataclass(frozen=True, slots=True)
class PromptKey:
    """What a prompt depends on: the key of its cache. ``voice`` is a clone's digest."""

    language: str
    speaker: str | None = None
    voice: str = ""
    instructions: str = ""


class Prompts:
    """Makes prompts and keeps the ``capacity`` most recently used, as far as there is room."""

    def __init__(
        self,
        config: Any,
        talker: Talker,
        slots: Slots,
        codec: CodecRunner,
        text: TextEncoder,
        capacity: int,
    ) -> None:
        self._config = config
        self._talker = talker
        self._slots = slots
        self._codec = codec
        self._text = text
        self._capacity = capacity
        self._made: OrderedDict[PromptKey, Prompt] = OrderedDict()
        start = config.im_start_token_id
        self._assistant = [start, *text.tokens("assistant\n")]
        self._end_of_message = [config.im_end_token_id, *text.tokens("\n")]

    @property
    def speakers(self) -> dict[str, int]:
        return self._talker.config.spk_id or {}

    @property
    def _is_heavy(self) -> bool:
        held = sum(prompt.length + len(prompt.bridge) for prompt in self._made.values())
        return len(self._made) > 1 and held > KEPT_SLOTS * self._slots.length

    def find(self, key: PromptKey) -> Prompt | None:
        """The prompt, if it is made."""
        if key in self._made:
            self._made.move_to_end(key)
        return self._made.get(key)

    @torch.no_grad()
    def make(self, key: PromptKey, reference: Reference | None) -> Prompt:
        """The prompt of ``key``, from the cache or made now; ``reference`` is its cloned voice.

        Raises BackendError ``prompt_too_long``.
        """
        if found := self.find(key):
            return found
        side = self._code_side(key, reference)
        pad, bos = self._config.tts_pad_token_id, self._config.tts_bos_token_id
        spoken = self._embed_text([pad] * (len(side) - 1) + [bos]) + side
        parts = [self._embed_text(self._assistant), spoken]
        if key.instructions:
            spoken_to = self._text.tokens("user\n" + key.instructions)
            message = [self._config.im_start_token_id, *spoken_to, *self._end_of_message]
            parts.insert(0, self._embed_text(message))
        bridge, lead, state = spoken[:0], (), None
        carry = self._talker.first_codes[self._talker.config.codec_bos_id]
        if reference is not None and reference.codes is not None:
            lead = tuple(self._text.tokens(reference.text))
            bridge, carry = self.bridge(carry, reference.codes)
            known = min(len(bridge), len(lead))
            parts.append(self._embed_text(list(lead[:known])) + bridge[:known])
            bridge, lead = bridge[known:], lead[known:]
        x = torch.cat(parts)
        self._check_room(len(x) + len(bridge) + len(lead))
        if reference is not None and reference.codes is not None:
            state = self._codec.prime(reference.codes)
        memory = self._compute(x)
        prompt = Prompt(memory, carry, bridge, lead, state)
        self._made[key] = prompt
        while len(self._made) > self._capacity or self._is_heavy:
            self._made.popitem(last=False)
        return prompt

    def continued(
        self, prompt: Prompt, tokens: tuple[int, ...], frames: list[tuple[int, ...]]
    ) -> Prompt:
        """``prompt`` as if the turn had just said ``tokens`` in ``frames``."""
        bridge, carry = self.bridge(prompt.carry, torch.tensor(frames))
        return Prompt(prompt.memory, carry, bridge, tokens)

    def bridge(self, first: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The code side of speech that was said: its inputs [n, H], and the next one [H]."""
        frames = self._talker.embed_frames(sent_to(first.device, codes))
        return torch.cat((first[None], frames[:-1])), frames[-1]

    @torch.no_grad()
    def cross(self, slot: int, prompt: Prompt, tokens: list[int]) -> None:
        """Give the bridge of ``prompt``, placed in ``slot``, its text ``tokens``."""
        x = self._embed_text(tokens) + prompt.bridge
        self._run(slot, x, prompt.length)

    # -- how ---------------------------------------------------------------------------------------

    def _embed_text(self, tokens: list[int]) -> Tensor:
        table = self._talker.text
        return table[sent_to(table.device, torch.tensor(tokens))]

    def _code_side(self, key: PromptKey, reference: Reference | None) -> Tensor:
        """Think tags, speaker and pad: [n, H]."""
        config = self._talker.config
        language = self._language_id(key)
        if language is None:
            tags = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id]
        else:
            tags = [
                config.codec_think_id,
                config.codec_think_bos_id,
                language,
                config.codec_think_eos_id,
            ]
        table = self._talker.first_codes
        parts = [table[sent_to(table.device, torch.tensor(tags))]]
        if reference is not None:
            parts.append(sent_to(table.device, reference.embedding.to(table.dtype))[None])
        elif key.speaker is not None:
            parts.append(table[self.speakers[key.speaker]][None])
        parts.append(table[config.codec_pad_id][None])
        return torch.cat(parts)

    def _language_id(self, key: PromptKey) -> int | None:
        config = self._talker.config
        dialects = config.spk_is_dialect or {}
        # Some speakers speak a dialect of Chinese unless told to speak another language.
        if key.language in ("chinese", "auto") and dialects.get(key.speaker):
            return config.codec_language_id[dialects[key.speaker]]
        return None if key.language == "auto" else config.codec_language_id[key.language]

    def _check_room(self, length: int) -> None:
        """A prompt, with what it still swallows, leaves half of the slot to speech."""
        if length > self._slots.length // 2:
            raise BackendError(
                f"voice and instructions take {length} of {self._slots.length} positions; use "
                "a shorter reference or instructions, or raise option 'max_length'",
                code="prompt_too_long",
            )

    def _compute(self, x: Tensor) -> Tensor:
        """Keys and values of the inputs x [n, H] at positions 0 … n - 1."""
        slots = self._slots
        self._run(slots.scratch, x, 0)
        return slots.memory[:, slots.scratch, ..., : len(x), :].clone()

    def _run(self, slot: int, x: Tensor, start: int) -> None:
        positions = torch.arange(start, start + len(x), device=x.device)[None]
        rows = torch.full((1,), slot, device=x.device)
        window = self._slots.window(rows, positions, start + len(x))
        self._talker.stack.forward(x[None], positions, window, window.mask())
