"""The messages that cross the pipe, one frozen dataclass each, and nothing that sends them.

Fields hold only what msgpack carries: int, float, str, bytes, bool, None, dict, list.
docs/worker-protocol.md lists the same messages, and tests/unit/test_worker_protocol_docs.py fails
when the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

PROTOCOL_VERSION = 1


class Message:
    """Base of every message. ``type`` is its name on the wire."""

    __slots__ = ()
    type: ClassVar[str]


# -- both directions before and beside jobs ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """worker → server, first message: who is there, before any model is loaded."""

    backend: str
    python: str
    pid: int
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Load(Message):
    """server → worker: load the model with the options of backends.yaml."""

    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """worker → server: the model is loaded and warm; ``info`` is a BackendInfo as a map."""

    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prepare(Message):
    """server → worker: make and cache the prompt of ``voice``; answered by Prepared or Failed."""

    request: int
    voice: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared(Message):
    """worker → server: the prompt of that request is cached."""

    request: int


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """server → worker: is your reader thread alive? Says nothing about progress."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """worker → server: the answer to a Ping."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """server → worker: finish the jobs you have and exit 0."""


# -- server → worker, about one job --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Synthesize(Message):
    """server → worker: speak ``text``, a whole segment.

    ``resume`` is ``{"samples": n, "crc": crc32}``: send nothing of the first n samples when their
    CRC-32 is the one given, else fail with code ``resume_mismatch``.
    """

    job: int
    attempt: int
    text: str
    voice: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    resume: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Open(Message):
    """server → worker: a job whose text is still being written. Text and EndText follow."""

    job: int
    attempt: int
    voice: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    resume: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Text(Message):
    """server → worker: more text of an opened job, cut anywhere."""

    job: int
    text: str


@dataclass(frozen=True, slots=True)
class EndText(Message):
    """server → worker: the text of an opened job is complete."""

    job: int


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """server → worker: stop the job soon; the answer is still Done or Failed."""

    job: int


@dataclass(frozen=True, slots=True)
class Credit(Message):
    """server → worker: the job may send audio up to ``samples`` samples in all, not beyond.

    Only for jobs of workers with more than one slot. A job starts without credit; -1 is no limit.
    """

    job: int
    samples: int


# -- worker → server, about one job --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Audio(Message):
    """worker → server: the next PCM of a job; ``offset`` is the position of its first sample."""

    job: int
    attempt: int
    offset: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Words(Message):
    """worker → server: ``words`` are [char_start, char_end, start_sample, end_sample] lists.

    Characters count in the job's text, samples in its audio at 24 kHz. Sent before the Audio
    that holds the last sample of the words it lists.
    """

    job: int
    attempt: int
    words: list[list[int]]


@dataclass(frozen=True, slots=True)
class Done(Message):
    """worker → server: the job is over; nothing of it follows. Sent after a Cancel too.

    ``samples`` counts from the start of the job, resumed ones included. ``timing`` holds seconds:
    ``first`` from the job's arrival to its first chunk, ``total`` to its end. ``counts``: how much
    the totals of BatchBackend.counts grew since the worker's last Done, zeros included the first
    time.
    """

    job: int
    attempt: int
    samples: int
    cancelled: bool = False
    timing: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """worker → server: the job raised; or a Prepare (``request``); or, with neither, the load.

    ``code`` is ``synthesis_failed`` unless the backend raised a BackendError with its own.
    """

    error: str
    job: int | None = None
    attempt: int = 0
    request: int | None = None
    code: str = "synthesis_failed"
    detail: str = ""


MESSAGES: tuple[type[Message], ...] = (
    *(Hello, Load, Ready, Prepare, Prepared, Ping, Pong, Shutdown),
    *(Synthesize, Open, Text, EndText, Cancel, Credit),
    *(Audio, Words, Done, Failed),
)
for _cls in MESSAGES:
    _cls.type = _cls.__name__.lower()
TYPES: dict[str, type[Message]] = {cls.type: cls for cls in MESSAGES}
_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in MESSAGES}  # type: ignore[arg-type]


def to_wire(message: Message) -> dict[str, Any]:
    """The map that goes into the frame: ``type`` and the fields, not copied."""
    wire: dict[str, Any] = {"type": message.type}
    for name in _FIELDS[type(message)]:
        wire[name] = getattr(message, name)
    return wire


def from_wire(obj: object) -> Message:
    """Build the message, ignoring keys this version does not know. Raises ValueError."""
    if not isinstance(obj, dict):
        raise ValueError(f"a message is a map, not {type(obj).__name__}")
    try:
        cls = TYPES[obj["type"]]
    except (KeyError, TypeError):
        raise ValueError(f"unknown message type {obj.get('type')!r}") from None
    try:
        return cls(**{name: obj[name] for name in _FIELDS[cls] if name in obj})
    except TypeError as exc:
        raise ValueError(f"{obj['type']}: {exc}") from None
