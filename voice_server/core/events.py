"""What a turn hears of and what it asks for: its options, events and commands, one class each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voice_server.core.errors import VoiceServerError
from voice_server.core.text.inline import Cast
from voice_server.core.wire import Cancel, Done, Flush, Played, Token


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What a turn must know of its configuration and of its backend. Times are seconds.

    ``max_delay``: speak what is buffered after this much silence from the model, None never.
    ``confirm_delay``: the same for text that looks like a finished sentence.
    ``words_first``: sound waits until the times of its words were told, where they are.
    ``lookahead``: segments given to workers and not ended. ``backlog``: bytes of PCM held for the
    client, above which no further segment is given to a worker. ``job_chars``: text that one job
    of a text-streaming backend can hold, 0 for no limit. ``cast``: the voice of a ``[name]`` in
    the text, as a worker is told of it; None where names are ordinary text.
    """

    streams_text: bool = False
    word_timing: bool = False
    normalizes: bool = True
    tags: tuple[str, ...] = ()
    cast: Cast | None = None
    language: str | None = None
    ssml: bool = False
    timestamps: bool = False
    words_first: bool = True
    is_extended: bool = False
    max_delay: float | None = None
    confirm_delay: float = 0.5
    max_segment_chars: int = 300
    max_turn_chars: int = 2_000_000
    job_chars: int = 0
    lookahead: int = 2
    backlog: int = 96 * 1024


# -- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SegmentStarted:
    """A worker has the segment."""

    segment: int


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """The next PCM of a segment, int16 at 24 kHz."""

    segment: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class WordsArrived:
    """[start_char, end_char, start_sample, end_sample] of words of a segment."""

    segment: int
    words: list[list[int]]


@dataclass(frozen=True, slots=True)
class SegmentEnded:
    """Nothing more comes of the segment."""

    segment: int
    error: VoiceServerError | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """The session's ``deadline`` has passed."""


Event = (
    Token | Flush | Done | Cancel | Played
    | SegmentStarted | AudioArrived | WordsArrived | SegmentEnded | Tick
)  # fmt: skip


# -- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Speak a whole segment. A guess is speculation: it may be dropped unheard.

    ``voice``: of the speaker whom the text names; None is the turn's own.
    """

    segment: int
    text: str
    is_guess: bool = False
    voice: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Confirm:
    """The guess was right."""

    segment: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The guess was wrong: cancel its job; its number will be used again."""

    segment: int


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a job whose text follows."""

    segment: int


@dataclass(frozen=True, slots=True)
class Feed:
    """More text of an opened job."""

    segment: int
    text: str


@dataclass(frozen=True, slots=True)
class EndText:
    """The text of an opened job is complete."""

    segment: int


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Cancel every job of the turn."""


Command = Synthesize | Confirm | Drop | Open | Feed | EndText | CancelAll
