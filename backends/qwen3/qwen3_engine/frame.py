"""The step on the device: one frame of codes for every row of a batch.

text token ──┐
             ├─ talker ─ hidden ─┬─ codebook 0 ─┐
last frame ──┘                   └──────────────┴─ predictor × 15 ─ codebooks 1 … 15
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import Predictor, Talker
from .options import MAX_TOP_K
from .sampler import Dice, frame_key, penalise
from .slots import Slots


class Row(NamedTuple):
    """One row of a batch: all that the host knows and the device needs."""

    slot: int
    text: int
    position: int
    may_end: int
    is_active: int
    key: int
    frame: int
    top_k: int
    temperature: float
    top_p: float
    repetition_penalty: float


def idle(slot: int, position: int) -> Row:
    """A row that is carried along: of its slot it changes only what is not yet written."""
    return Row(slot, 0, position, 0, 0, 0, 0, 1, 1.0, 1.0, 1.0)


def tables(rows: list[Row], size: int, scratch: int) -> tuple[Tensor, Tensor]:
    """``rows`` as int64 [7, size] and float32 [3, size], padded with rows of the scratch slot.

    Of key and frame the device needs one number, which costs the host less than a launch.
    """
    padded = [*rows, *[idle(scratch, 0)] * (size - len(rows))]
    integers = [(*row[:5], frame_key(row.key, row.frame), row.top_k) for row in padded]
    floats = [(row.temperature, row.top_p, row.repetition_penalty) for row in padded]
    return torch.tensor(integers).T.contiguous(), torch.tensor(floats).T.contiguous()


@torch.no_grad()
def make_frame(
    talker: Talker,
    predictor: Predictor,
    slots: Slots,
    integers: Tensor,
    floats: Tensor,
    used: int,
    *,
    has_nucleus: bool = False,
    is_dense: bool = False,
) -> Tensor:
    """Codes [B, groups], int64, and the slots' state one frame further.

    State other than keys and values at ``position`` changes only in the last lines, when all is
    made, so a step that ran out of memory can be run again.
    """
    dice = roll(predictor, integers, floats, has_nucleus=has_nucleus)
    hidden, code = first_code(talker, slots, integers, floats, used, dice, is_dense=is_dense)
    codes = later_codes(predictor, hidden, code, dice)
    rows, is_active = integers[0], integers[4] != 0
    seen = slots.seen[rows, code] | is_active
    # The end is no code: what the predictor makes of it is thrown away on the host.
    total = talker.embed_frames(codes)
    carry = torch.where(is_active[:, None], total, slots.carry[rows])
    slots.seen[rows, code] = seen
    slots.carry[rows] = carry
    return codes


def roll(predictor: Predictor, integers: Tensor, floats: Tensor, *, has_nucleus: bool) -> Dice:
    """What chance decides in this frame: codebook 0's part first, then those of the others."""
    temperature, top_p, _ = floats.unbind()
    keys, top_k = integers[5:].unbind()
    nucleus = top_p if has_nucleus else None
    return Dice.of(predictor.noise(keys), temperature, top_k, nucleus, MAX_TOP_K)


def first_code(
    talker: Talker,
    slots: Slots,
    integers: Tensor,
    floats: Tensor,
    used: int,
    dice: Dice,
    *,
    is_dense: bool = False,
) -> tuple[Tensor, Tensor]:
    """The talker's hidden state [B, H] and codebook 0 [B]."""
    rows, text, positions, may_end = integers[:4].unbind()
    x = slots.carry[rows] + talker.text[text]
    window = slots.window(rows, positions[:, None], used, is_dense=is_dense)
    hidden = talker.stack.forward(x[:, None], positions[:, None], window, window.mask())[:, 0]

    logits = _at_least_float32(F.linear(hidden, talker.head))
    logits = penalise(logits, slots.seen[rows], floats[2].to(logits.dtype))
    logits = logits.masked_fill(talker.suppressed, -torch.inf)
    logits[:, talker.end].masked_fill_(may_end == 0, -torch.inf)
    return hidden, dice.choose(logits)


def later_codes(predictor: Predictor, hidden: Tensor, code: Tensor, dice: Dice) -> Tensor:
    """All codes of the frame [B, groups], from the talker's hidden state and codebook 0."""
    codes, size = [code], predictor.heads.shape[1]
    start = dice.noise.shape[1] - predictor.steps * size
    entry = torch.stack((predictor.project(hidden), predictor.first_codes[code]), 1)
    for step in range(predictor.steps):
        out = predictor.forward(entry, 0 if step == 0 else step + 1)
        logits = _at_least_float32(F.linear(out, predictor.heads[step]))
        code = dice.choose(logits, start + step * size)
        codes.append(code)
        if step + 1 < predictor.steps:
            entry = predictor.later_codes[step][code][:, None]
    return torch.stack(codes, 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
