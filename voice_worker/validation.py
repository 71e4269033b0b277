"""What the fields of a message may hold: types, ranges, shapes. Nothing about when it may be sent.

Types are exact: ``True`` is no integer and a numpy integer is none either, because what one end
sends must be what the other end receives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from voice_worker import messages as m

MAX_INT = (1 << 63) - 1
MAX_SLOTS = 4096
_MAX_CRC = (1 << 32) - 1


def check(message: m.Message) -> None:
    """Raise ValueError, naming message and field, unless every field holds what it may."""
    cls = type(message)
    for name, allowed, least in _FIELDS[cls]:
        value = getattr(message, name)
        found = type(value)
        if found not in allowed:
            wanted = " or ".join(sorted(t.__name__ for t in allowed))
            raise ValueError(f"{cls.__name__}.{name} must be {wanted}, not {found.__name__}")
        if found is int and not least <= value <= MAX_INT:
            raise ValueError(f"{cls.__name__}.{name} is {value}, out of range")
    if (shape := _SHAPES.get(cls)) is not None:
        shape(message)


def _require(is_met: bool, what: str) -> None:
    if not is_met:
        raise ValueError(what)


def _are(values: Iterable[object], cls: type) -> bool:
    return all(type(value) is cls for value in values)


def _audio(message: m.Audio) -> None:
    _require(
        bool(message.pcm) and len(message.pcm) % 2 == 0,
        f"Audio.pcm holds {len(message.pcm)} bytes, not whole 16-bit samples",
    )


def _words(message: m.Words) -> None:
    for word in message.words:
        is_valid = type(word) is list and len(word) == 4 and _are(word, int)
        _require(
            is_valid and 0 <= word[0] <= word[1] and 0 <= word[2] <= word[3] <= MAX_INT,
            f"Words.words holds {word!r:.80}, not [start_char, end_char, start_sample, end_sample]",
        )


def _resume(message: m.Synthesize | m.Open) -> None:
    _require(_are(message.params, str), f"{type(message).__name__}.params has a key that is no str")
    if message.resume is None:
        return
    samples, crc = message.resume.get("samples"), message.resume.get("crc")
    _require(
        type(samples) is int
        and 0 < samples <= MAX_INT
        and type(crc) is int
        and 0 <= crc <= _MAX_CRC,
        "resume must be {'samples': n > 0, 'crc': CRC-32 of them}",
    )


def _done(message: m.Done) -> None:
    _require(
        all(
            type(key) is str and type(value) in (int, float) and math.isfinite(value)
            for key, value in message.timing.items()
        ),
        "Done.timing must map names to finite seconds",
    )
    _require(
        all(
            type(name) is str and type(count) is int and 0 <= count <= MAX_INT
            for name, count in message.counts.items()
        ),
        "Done.counts must map names to how often",
    )


def _failed(message: m.Failed) -> None:
    _require(message.job is None or message.request is None, "Failed names a job and a request")
    _require(bool(message.code), "Failed.code is empty")


def _ready(message: m.Ready) -> None:
    rate, slots = message.info.get("sample_rate"), message.info.get("slots")
    _require(
        type(rate) is int and 4000 <= rate <= 192_000,
        f"Ready.info.sample_rate must be an int in 4000..192000, not {rate!r:.40}",
    )
    _require(
        type(slots) is int and 1 <= slots <= MAX_SLOTS,
        f"Ready.info.slots must be an int in 1..{MAX_SLOTS}, not {slots!r:.40}",
    )
    _require(
        type(message.info.get("streams_text")) is bool, "Ready.info.streams_text must be a bool"
    )


_SHAPES: dict[type[m.Message], Callable[[Any], None]] = {
    m.Audio: _audio,
    m.Words: _words,
    m.Synthesize: _resume,
    m.Open: _resume,
    m.Done: _done,
    m.Failed: _failed,
    m.Ready: _ready,
}


def _plain_types(hint: Any) -> frozenset[type]:
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return frozenset(get_origin(option) or option or NoneType for option in options)


def _rows(cls: type[m.Message]) -> tuple[tuple[str, frozenset[type], int], ...]:
    hints = get_type_hints(cls)
    return tuple(
        # -1 is Credit's "no limit"; every other integer is a count, a position or a name.
        (f.name, _plain_types(hints[f.name]), -1 if (cls, f.name) == (m.Credit, "samples") else 0)
        for f in fields(cls)  # type: ignore[arg-type]
    )


_FIELDS = {cls: _rows(cls) for cls in m.MESSAGES}
