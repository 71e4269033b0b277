"""Chooses codes from logits, on the device, with noise that depends on nothing but the slot.

The noise of a code is a hash of (key, frame, codebook, code): the same seed gives the same speech
whatever else is in the batch and whenever the frame is made. The Gumbel-max trick then makes an
argmax over noisy logits a sample from their softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers held in int64, with full avalanche.

    Shifts and multipliers are "lowbias32" of the hash-prospector project (public domain).
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW32
    return x ^ (x >> 16)


def make_key(seed: int, attempt: int) -> int:
    """The 32-bit key of a turn. A retry of the same turn has another ``attempt``."""
    state = torch.tensor(attempt & _LOW32)
    for word in (seed & _LOW32, (seed >> 32) & _LOW32):
        state = _mix((state + _GOLDEN & _LOW32) ^ word)
    return int(state)


def gumbel(keys: Tensor, frames: Tensor, first: int, groups: int, vocab: int) -> Tensor:
    """Noise [B, groups, vocab], float32, for codebooks first … of each row's frame.

    ``keys`` and ``frames`` are int64 [B].
    """
    device = keys.device
    group = torch.arange(first, first + groups, device=device)
    state = _mix(keys ^ _mix((frames + _GOLDEN) & _LOW32))
    state = _mix(state[:, None] ^ ((group + 1) * _GOLDEN & _LOW32))
    bits = _mix(state[..., None] ^ _mix(torch.arange(vocab, device=device) + 1))
    # 24 bits, centred in their bin: never 0, never 1.
    uniform = ((bits >> 8).float() + 0.5) * 2.0**-24
    return -torch.log(-torch.log(uniform))


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Make codes this turn has used less likely, as transformers' repetition penalty does."""
    penalty = penalty[:, None]
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def choose(
    logits: Tensor,
    noise: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor | None,
    cap: int,
) -> Tensor:
    """One code per row, int64 [B], from logits [B, V].

    ``top_k`` is 1 … cap; ``top_p`` None leaves that cut out. Temperature 0 is the argmax.
    """
    is_greedy = temperature == 0
    heat = torch.where(is_greedy, 1.0, temperature).to(logits.dtype)[:, None]
    best = logits.topk(min(cap, logits.shape[-1]), -1).values
    floor = best.gather(1, top_k.clamp(max=best.shape[1])[:, None] - 1)
    if top_p is not None:
        chances = torch.softmax(best.masked_fill(best < floor, -torch.inf) / heat, -1)
        # A code stays while those likelier than it do not yet make up top_p.
        is_kept = chances.cumsum(-1) - chances < top_p[:, None]
        is_kept &= best >= floor
        last = is_kept.sum(-1, keepdim=True).clamp(min=1) - 1
        floor = best.gather(1, last)
    noisy = logits / heat + torch.where(is_greedy, 0.0, 1.0)[:, None] * noise
    return noisy.masked_fill(logits < floor, -torch.inf).argmax(-1)
