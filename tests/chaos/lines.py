"""The table: what is broken, what is wanted, and how to find out what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True)
class Reached:
    """A figure, in words. ``is_right``: what must never happen did not. ``is_in_time``: it was
    quick and small enough, which a busy machine can spoil.
    """

    figure: str
    is_right: bool
    is_in_time: bool = True

    @property
    def is_enough(self) -> bool:
        return self.is_right and self.is_in_time


@dataclass(frozen=True)
class Line:
    """``run`` takes a scale: 1.0 is the whole of it, less is a shorter look."""

    name: str
    wanted: str
    run: Callable[[float], Reached]


LINES: list[Line] = []


def line(
    name: str, wanted: str
) -> Callable[[Callable[[float], Reached]], Callable[[float], Reached]]:
    """Put a function into the table."""

    def add(run: Callable[[float], Reached]) -> Callable[[float], Reached]:
        LINES.append(Line(name, wanted, run))
        return run

    return add


def count(whole: int, scale: float, least: int = 1) -> int:
    """So many of ``whole`` at this scale."""
    return max(least, round(whole * scale))


def p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else (values[0] if values else 0.0)
