"""Notices a generation that has run away: no end in sight, stuck on a sound, or going in circles.

Pure: it sees codebook 0 of each frame and knows nothing of tensors. One frame lasts 80 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

STALL_FRAMES = 50
STALL_CODES = 2
LOOP_PERIODS = range(4, 41)
LOOP_REPEATS = 3
CHECK_EVERY = 8
# A turn of a single word may still take its time to begin and to end.
FREE_FRAMES = 40


class Runaway(StrEnum):
    NO_END = "no_end"
    STALL = "stall"
    LOOP = "loop"


@dataclass(slots=True)
class Guard:
    """The watch over one piece. ``frames_per_token`` is what a token may take at most."""

    frames_per_token: float

    def check(self, codes: list[int], tokens: int, is_text_over: bool) -> Runaway | None:
        """What is wrong with a piece of ``codes`` so far, that was given ``tokens`` of text."""
        if is_text_over and len(codes) > FREE_FRAMES + self.frames_per_token * tokens:
            return Runaway.NO_END
        if len(codes) % CHECK_EVERY:
            return None
        if len(codes) >= STALL_FRAMES and len(set(codes[-STALL_FRAMES:])) <= STALL_CODES:
            return Runaway.STALL
        return Runaway.LOOP if _is_looping(codes) else None


def _is_looping(codes: list[int]) -> bool:
    """The same stretch three times over. Sampled speech never repeats itself code for code."""
    for period in LOOP_PERIODS:
        stretch = period * LOOP_REPEATS
        if len(codes) < stretch:
            return False
        tail = codes[-stretch:]
        if tail[:period] * LOOP_REPEATS == tail and len(set(tail)) > STALL_CODES:
            return True
    return False
