"""Chooses codes from logits, on the device, with noise that depends on nothing but the slot.

The noise of a code is a hash of (key, frame, codebook, code): the same seed gives the same speech
whatever else is in the batch and whenever the frame is made. The Gumbel-max trick then makes an
argmax over noisy logits a sample from their softmax. What does not depend on logits is computed
once a frame, as ``Dice``, and a code is then one pass: the cut, one multiply-add, the argmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
Word = TypeVar("Word", int, Tensor)


def _mix(x: Word) -> Word:
    """A bijection of 32-bit integers (in int64 where they are tensors), with full avalanche.

    Shifts and multipliers are "lowbias32" of the hash-prospector project (public domain). A tensor
    is overwritten: fresh memory for each of these would cost more than the arithmetic.
    """
    x ^= x >> 16
    x *= 0x7FEB352D
    x &= _LOW32
    x ^= x >> 15
    x *= 0x846CA68B
    x &= _LOW32
    x ^= x >> 16
    return x


def make_key(seed: int, attempt: int) -> int:
    """The 32-bit key of a turn. A retry of the same turn has another ``attempt``."""
    state = attempt & _LOW32
    for word in (seed & _LOW32, (seed >> 32) & _LOW32):
        state = _mix((state + _GOLDEN & _LOW32) ^ word)
    return state


def frame_key(key: int, frame: int) -> int:
    """The 32-bit key of one frame of a turn."""
    return _mix(key ^ _mix((frame + _GOLDEN) & _LOW32))


class Noise:
    """Gumbel noise for every code of a frame whose codebooks have ``sizes`` codes."""

    def __init__(self, sizes: list[int], device: torch.device) -> None:
        groups = torch.arange(len(sizes), device=device)
        self._groups = (groups + 1) * _GOLDEN & _LOW32
        self._group_of = groups.repeat_interleave(torch.tensor(sizes, device=device))
        self._codes = _mix(torch.cat([torch.arange(size, device=device) for size in sizes]) + 1)

    def __call__(self, keys: Tensor) -> Tensor:
        """Frame keys, int64 [B] → float32 [B, sum of sizes], codebook after codebook."""
        state = _mix(keys[:, None] ^ self._groups)
        bits = state[:, self._group_of]
        bits ^= self._codes
        return gumbel(_mix(bits))


def gumbel(words: Tensor) -> Tensor:
    """Gumbel noise of 32-bit words, float32, always finite.

    23 bits, centred in their bin: never 0, and with one bit more the last would be rounded to 1.
    """
    uniform = (words >> 9).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Make codes this turn has used less likely, as transformers' repetition penalty does."""
    penalty = penalty[:, None]
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


@dataclass(frozen=True, slots=True)
class Dice:
    """How the rows of a batch choose their codes: all of it but the logits.

    ``noise`` [B, codes of all codebooks], ``heat`` [B, 1] to multiply logits by, ``last`` int64
    [B, 1], the rank of the last code that may be chosen of ``cap``; ``top_p`` [B, 1], or None to
    leave that cut out. A row of temperature 0 has no noise and a heat of 1: the argmax.
    """

    noise: Tensor
    heat: Tensor
    last: Tensor
    top_p: Tensor | None
    cap: int

    @classmethod
    def of(
        cls, noise: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor | None, cap: int
    ) -> Dice:
        """For rows of these settings, [B] each. ``top_k`` is 1 … cap; ``noise`` is taken over."""
        is_random = (temperature > 0)[:, None]
        heat = torch.where(is_random, 1 / temperature[:, None], 1.0)
        top_p = None if top_p is None else top_p[:, None]
        return cls(noise.mul_(is_random), heat, top_k[:, None] - 1, top_p, cap)

    def choose(self, logits: Tensor, start: int = 0) -> Tensor:
        """One code per row, int64 [B], from logits [B, V] whose noise begins at ``start``."""
        size = logits.shape[-1]
        cap = min(self.cap, size)
        best = logits.topk(cap, -1).values
        last = self.last if cap == self.cap else self.last.clamp(max=cap - 1)
        floor = best.gather(1, last)
        if self.top_p is not None:
            chances = torch.softmax((best * self.heat).masked_fill(best < floor, -torch.inf), -1)
            # A code stays while those likelier than it do not yet make up top_p.
            is_kept = (chances.cumsum(-1) - chances < self.top_p) & (best >= floor)
            floor = best.gather(1, is_kept.sum(-1, keepdim=True).clamp(min=1) - 1)
        noisy = torch.addcmul(self.noise[:, start : start + size], logits, self.heat)
        return noisy.masked_fill_(logits < floor, -torch.inf).argmax(-1)
