"""The options of a job, checked, in the units of eSpeak NG."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from library import FASTEST, NORMAL_RATE, SLOWEST

from voice_worker import BackendError

NAMES = ("speed", "pitch", "range", "volume", "word_gap", "ssml")


@dataclass(frozen=True)
class Options:
    """``rate`` in words a minute as far as eSpeak NG goes; ``stretch`` makes up for the rest.

    ``stretch`` is the length of what is heard by the length of what eSpeak NG makes.
    """

    rate: int
    stretch: float
    pitch: int
    range: int
    volume: int
    word_gap: int
    ssml: bool


def parse(params: Mapping[str, Any]) -> Options:
    """Raises BackendError with code bad_option, naming the option and its range."""
    wanted = NORMAL_RATE * _number(params, "speed", 1.0, 0.25, 4.0)
    rate = round(min(max(wanted, SLOWEST), FASTEST))
    ssml = params.get("ssml", False)
    if type(ssml) is not bool:
        raise BackendError("ssml must be true or false", code="bad_option")
    return Options(
        rate=rate,
        stretch=1.0 if SLOWEST <= wanted <= FASTEST else rate / wanted,
        pitch=round(_number(params, "pitch", 50, 0, 100)),
        range=round(_number(params, "range", 50, 0, 100)),
        volume=round(_number(params, "volume", 100, 0, 200)),
        word_gap=round(100 * _number(params, "word_gap", 0, 0, 2)),
        ssml=ssml,
    )


def _number(
    params: Mapping[str, Any], name: str, default: float, least: float, most: float
) -> float:
    value = params.get(name, default)
    # Also refuses True, and NaN, which is in no range.
    if type(value) not in (int, float) or not least <= value <= most:
        message = f"{name} must be a number from {least:g} to {most:g}, not {value!r:.40}"
        raise BackendError(message, code="bad_option")
    return float(value)
