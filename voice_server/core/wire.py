"""Messages of ``WS /stream-tokens``, version 1: JSON text in, events out. See docs/protocol.md.

A message has no ``type``: its keys say what it means, and several may stand in one message
(``{"token": "Bye.", "done": true}``). They take effect in the order of ``Event`` below.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from voice_server.core.errors import RequestError, UnsupportedFormat, VoiceServerError

PROTOCOL = 1
SAMPLE_RATE = 24_000
# Bytes of one sample.
PCM_ENCODINGS = {"pcm_s16le": 2, "pcm_f32le": 4, "pcm_mulaw": 1, "pcm_alaw": 1}
ENCODINGS = (*PCM_ENCODINGS, "opus", "mp3", "flac")


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What the listener gets. ``sample_rate`` in hertz, 8000 to 48000; always mono."""

    encoding: str = "pcm_s16le"
    sample_rate: int = SAMPLE_RATE

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample; 1 for compressed formats, whose position is counted in bytes."""
        return PCM_ENCODINGS.get(self.encoding, 1)


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue a dropped session: ``samples`` of its current turn were received."""

    session: str
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Configure:
    """The configuration of a context, or of the whole socket when it is the first message."""

    voice: str | None = None
    backend: str | None = None
    opts: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    instructions: str | None = None
    format: AudioFormat = AudioFormat()
    timestamps: bool = False
    max_delay: float | None = None
    keep_open: bool = False
    framing: str = "raw"
    seed: int | None = None
    resume: Resume | None = None
    # True when any key beyond ``voice`` and ``opts`` was there: only then are additions sent.
    is_extended: bool = False
    # False: sound does not wait for the times of its words. Doors say so, clients cannot.
    words_first: bool = True
    # The fields that were there: what a later configuration changes of an earlier one.
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def changed_by(self, later: Configure) -> Configure:
        """This configuration with what ``later`` names."""
        changes = {name: getattr(later, name) for name in later.given}
        return replace(self, **changes, is_extended=self.is_extended or later.is_extended)


@dataclass(frozen=True, slots=True)
class Preempt:
    """Cancel every other context."""


@dataclass(frozen=True, slots=True)
class Played:
    """The listener has heard ``seconds`` of the current turn."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """The user interrupts, having heard ``played`` seconds of the turn if that is known."""

    played: float | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """Text, cut anywhere."""

    text: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Speak now what is buffered."""


@dataclass(frozen=True, slots=True)
class Done:
    """No more text in this turn."""


Event = Configure | Preempt | Played | Cancel | Token | Flush | Done

_CONFIG_KEYS = frozenset(
    [
        "voice",
        "backend",
        "opts",
        "language",
        "instructions",
        "format",
        "timestamps",
        "max_delay_ms",
        "keep_open",
        "framing",
        "seed",
        "resume",
    ]
)
_KEYS = _CONFIG_KEYS | {"token", "flush", "cancel", "played_ms", "done", "context", "preempt"}
_FORMAT_KEYS = frozenset({"encoding", "sample_rate"})
_RESUME_KEYS = frozenset({"session", "samples"})
# What a BCP 47 tag looks like, or a language's name, which some engines go by: "Portuguese".
LANGUAGE_TAG = r"^[A-Za-z]{2,16}(-[A-Za-z0-9]{1,8})*$"
_MAX_NAME = 200
_DECODER = json.JSONDecoder()
T = TypeVar("T")


def parse(raw: str) -> tuple[str | None, list[Event]]:
    """The context and the events of one text message.

    Raises RequestError (``invalid_json``, ``bad_message``) or UnsupportedFormat, naming the field.
    """
    if (token := parse_token(raw)) is not None:
        return None, [token]
    try:
        obj = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        is_decoded = isinstance(exc, json.JSONDecodeError)
        why = str(exc) if is_decoded else "nested too deeply, or a number of too many digits"
        raise RequestError(
            f'not JSON ({why}); send text messages such as {{"token": "Hello "}}',
            code="invalid_json",
        ) from None
    if not isinstance(obj, dict):
        raise _bad(f'a message is a JSON object such as {{"token": "Hello "}}, not {_kind(obj)}')
    return _parse_object(obj)


def parse_token(raw: str) -> Token | None:
    """The token of a message that holds nothing else; it comes twenty times a second.

    ``json.loads`` takes twice as long, looking for white space around the value.
    """
    try:
        obj, end = _DECODER.raw_decode(raw)
    except (ValueError, RecursionError):
        return None
    if end != len(raw) or not isinstance(obj, dict) or len(obj) != 1:
        return None
    text = obj.get("token")
    return Token(text) if isinstance(text, str) else None


def _parse_object(obj: dict[str, Any]) -> tuple[str | None, list[Event]]:
    _check_keys(obj, _KEYS)
    context = _typed(obj, "context", str)
    if context is not None and not 0 < len(context) <= _MAX_NAME:
        raise _bad(f"context: expected 1 to {_MAX_NAME} characters")
    events: list[Event] = []
    if obj.keys() & _CONFIG_KEYS:
        events.append(parse_config(obj))
    if _typed(obj, "preempt", bool):
        events.append(Preempt())
    played = _milliseconds(obj, "played_ms")
    if _typed(obj, "cancel", bool):
        events.append(Cancel(played))
    elif played is not None:
        events.append(Played(played))
    if (text := _typed(obj, "token", str)) is not None:
        events.append(Token(text))
    if _typed(obj, "flush", bool):
        events.append(Flush())
    if _typed(obj, "done", bool):
        events.append(Done())
    return context, events


def parse_config(obj: Mapping[str, Any]) -> Configure:
    """The configuration among the keys of ``obj``; other keys are not looked at."""
    opts = _typed(obj, "opts", dict) or {}
    resume = _typed(obj, "resume", dict)
    seed = _typed(obj, "seed", int)
    if seed is not None and not 0 <= seed < 2**63:
        raise _bad("seed: expected a whole number from 0 to 2^63-1")
    language = _typed(obj, "language", str)
    if language is not None and not re.fullmatch(LANGUAGE_TAG, language):
        raise _bad(f"language: expected a tag such as 'en' or 'pt-BR', got {language[:40]!r}")
    framing = _typed(obj, "framing", str) or "raw"
    if framing not in ("raw", "msgpack"):
        raise _bad(f"framing: expected 'raw' or 'msgpack', got {framing[:40]!r}")
    return Configure(
        voice=_name(obj, "voice"),
        backend=_name(obj, "backend"),
        opts=opts,
        language=language,
        instructions=_typed(obj, "instructions", str),
        format=parse_format(obj.get("format")),
        timestamps=_typed(obj, "timestamps", bool) or False,
        max_delay=_milliseconds(obj, "max_delay_ms"),
        keep_open=_typed(obj, "keep_open", bool) or False,
        framing=framing,
        seed=seed,
        resume=None if resume is None else _parse_resume(resume),
        is_extended=bool(obj.keys() & (_CONFIG_KEYS - {"voice", "opts"})),
        given=frozenset(
            "max_delay" if key == "max_delay_ms" else key for key in obj.keys() & _CONFIG_KEYS
        ),
    )


def parse_format(obj: object) -> AudioFormat:
    """``{"encoding", "sample_rate"}``, or an encoding's name alone. Raises UnsupportedFormat."""
    if obj is None:
        return AudioFormat()
    if isinstance(obj, str):
        obj = {"encoding": obj}
    if not isinstance(obj, dict):
        raise _bad('format: expected {"encoding": "pcm_s16le", "sample_rate": 24000}')
    _check_keys(obj, _FORMAT_KEYS, "format.")
    encoding, rate = obj.get("encoding", "pcm_s16le"), obj.get("sample_rate", SAMPLE_RATE)
    if encoding not in ENCODINGS:
        raise UnsupportedFormat(
            f"format.encoding: expected one of {', '.join(ENCODINGS)}, got {str(encoding)[:40]!r}"
        )
    if type(rate) is not int or not 8000 <= rate <= 48_000:
        raise UnsupportedFormat(
            "format.sample_rate: expected a whole number from 8000 to 48000, "
            f"got {str(rate)[:40]!r}"
        )
    return AudioFormat(encoding, rate)


def error_message(error: VoiceServerError) -> dict[str, Any]:
    """The ``error`` message that tells a client what went wrong, and when to come back."""
    message = {"type": "error", "msg": str(error), "code": error.code, "retryable": error.retryable}
    if error.retry_after is not None:
        message["retry_after_ms"] = round(error.retry_after * 1000)
    return message


def _parse_resume(obj: Mapping[str, Any]) -> Resume:
    _check_keys(obj, _RESUME_KEYS, "resume.")
    session, samples = _typed(obj, "session", str), _typed(obj, "samples", int)
    if not session or samples is None or samples < 0:
        raise _bad('resume: expected {"session": "…", "samples": how many were received}')
    return Resume(session, samples)


def _check_keys(obj: Mapping[str, Any], known: frozenset[str], where: str = "") -> None:
    """Refuse a key that is not ``known``, so that a misspelt one is noticed."""
    for key in obj.keys() - known:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
        raise _bad(f"unknown field {where + key[:_MAX_NAME]!r}{hint}")


def _typed(obj: Mapping[str, Any], key: str, cls: type[T]) -> T | None:
    value = obj.get(key)
    if value is None:
        return None
    # bool is an int in Python, but `"seed": true` is a mistake.
    if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
        expected = {str: "text", int: "a whole number", bool: "true or false", dict: "an object"}
        raise _bad(f"{key}: expected {expected.get(cls, cls.__name__)}, got {_kind(value)}")
    return value


def _name(obj: Mapping[str, Any], key: str) -> str | None:
    name = _typed(obj, key, str)
    if name is not None and len(name) > _MAX_NAME:
        raise _bad(f"{key}: a name has at most {_MAX_NAME} characters")
    return name or None


def _milliseconds(obj: Mapping[str, Any], key: str) -> float | None:
    value = obj.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise _bad(f"{key}: expected milliseconds from 0 to 10^9, got {_kind(value)}")
    return value / 1000


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {str(value)[:40]}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return "a list"
        case _:
            return "an object"


def _bad(message: str) -> RequestError:
    return RequestError(message, code="bad_message")
