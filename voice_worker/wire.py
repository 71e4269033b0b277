"""How a Voice and a BackendInfo look inside a message, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from voice_worker.backend import BackendInfo, Sample, Speaker, Voice


def voice_to_map(voice: Voice) -> dict[str, Any]:
    """The ``voice`` field of Synthesize, Open and Prepare. Paths become strings."""
    return {
        "speaker": voice.speaker,
        "samples": [{"path": str(s.path), "transcript": s.transcript} for s in voice.samples],
        "design": voice.design,
        "digest": voice.digest,
        "cache": None if voice.cache is None else str(voice.cache),
    }


def voice_from_map(value: Mapping[str, Any]) -> Voice:
    """The inverse; absent keys have their defaults. Raises ValueError naming the key."""
    samples = value.get("samples") or ()
    if not isinstance(samples, list | tuple):
        raise ValueError("voice.samples must be a list")
    return Voice(
        speaker=_text(value, "speaker"),
        samples=tuple(_sample(sample) for sample in samples),
        design=_text(value, "design"),
        digest=_text(value, "digest") or "",
        cache=Path(cache) if (cache := _text(value, "cache")) is not None else None,
    )


def info_to_map(info: BackendInfo) -> dict[str, Any]:
    """The ``info`` field of Ready."""
    return asdict(info)


def info_from_map(value: Mapping[str, Any]) -> BackendInfo:
    """The inverse, ignoring keys this version does not know.

    Raises ValueError naming the key when a value is not of the type that BackendInfo declares.
    """
    given: dict[str, Any] = {}
    for f in fields(BackendInfo):
        if f.name in value:
            given[f.name] = _info_value(f.name, value[f.name])
    if "sample_rate" not in given:
        raise ValueError("info.sample_rate is missing")
    return BackendInfo(**given)


def _info_value(name: str, value: Any) -> Any:
    if name == "speakers":
        return tuple(_speaker(entry) for entry in _list(name, value))
    hint = _INFO_HINTS[name]
    if hint == tuple[str, ...]:
        entries = _list(name, value)
        if any(type(entry) is not str for entry in entries):
            raise ValueError(f"info.{name} must hold strings")
        return tuple(entries)
    if type(value) is int and float in get_args(hint):
        return float(value)
    if type(value) not in (get_args(hint) or (hint,)):
        raise ValueError(f"info.{name} must not be {type(value).__name__}")
    return value


def _speaker(entry: Any) -> Speaker:
    known = {f.name for f in fields(Speaker)}
    if not isinstance(entry, Mapping) or any(
        type(entry.get(name, "")) is not str for name in known
    ):
        raise ValueError("info.speakers must hold maps of strings")
    if not entry.get("id"):
        raise ValueError("info.speakers holds a speaker without an id")
    return Speaker(**{name: entry[name] for name in known if name in entry})


def _sample(entry: Any) -> Sample:
    if not isinstance(entry, Mapping) or (path := _text(entry, "path")) is None:
        raise ValueError("voice.samples must hold maps with a path")
    return Sample(Path(path), _text(entry, "transcript"))


def _list(name: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"info.{name} must be a list")
    return value


def _text(value: Mapping[str, Any], key: str) -> str | None:
    found = value.get(key)
    if type(found) not in (str, NoneType):
        raise ValueError(f"voice.{key} must be a string, not {type(found).__name__}")
    return found


_INFO_HINTS = get_type_hints(BackendInfo)
