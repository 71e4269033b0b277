"""The sound side of one turn: frames that wait for the codec, samples that wait to be taken."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from voice_worker.backend import BackendError

from .job import Job, Start
from .prompts import Prompt
from .tempo import Tempo

# Louder than this, the listener has heard something: -60 dB of full scale.
AUDIBLE = 1e-3
FADE = 240
# A pause is looked for this many frames around where a sentence is likely to begin.
PAUSE_SEARCH = 12


class Tail(NamedTuple):
    """The last sentence of a piece: its tokens, and the frames that most likely speak them."""

    tokens: tuple[int, ...]
    frames: list[tuple[int, ...]]


@dataclass(slots=True, eq=False)
class Stream:
    """One turn in the engine. ``in_flight`` frames of this ``generation`` are still to be read."""

    job: Job
    prompt: Prompt
    key: int
    generation: int = 0
    in_flight: int = 0
    is_fresh: bool = True
    has_sounded: bool = False
    error: BackendError | None = None
    tail: Tail | None = None
    last_piece: tuple[int, int] = (0, 0)
    sounds: list[int] = field(default_factory=list)
    pending: list[tuple[int, ...]] = field(default_factory=list)
    _ready: list[np.ndarray] = field(default_factory=list)
    _has_delivered: bool = False
    _is_cut: bool = False
    _tempo: Tempo = field(init=False)

    def __post_init__(self) -> None:
        self._tempo = Tempo(self.job.options.speed)

    @property
    def is_over(self) -> bool:
        return self.error is not None or (self.job.is_finished and not self.pending)

    @property
    def has_news(self) -> bool:
        """Something to deliver without another frame."""
        return bool(self.is_over or self._ready or self.pending)

    @property
    def can_step(self) -> bool:
        return self.error is None and self.job.can_step()

    def outdate(self) -> None:
        """Whatever is on its way from the device belongs to nobody any more."""
        self.generation += 1
        self.in_flight = 0

    # -- pieces ------------------------------------------------------------------------------------

    def next_start(self, tail: Tail | None) -> Start | None:
        if tail is None:
            bridge, lead = len(self.prompt.bridge), len(self.prompt.lead)
        else:
            bridge, lead = len(tail.frames), len(tail.tokens)
        return self.job.next_start(bridge, lead, is_bridge_optional=tail is not None)

    def begin(self) -> None:
        self.tail = None
        self.sounds = []

    def begin_again(self, key: int) -> None:
        """Drop the piece and say it with other random numbers."""
        self.outdate()
        self.key = key
        self.pending = []
        self.job.begin_again()

    def end_piece(self, *, is_cut: bool = False) -> None:
        self.outdate()
        self._is_cut = is_cut and bool(self.pending)
        start = self.job.start
        self.job.end_piece(is_cut=is_cut)
        self.last_piece = (start, self.job.start)

    # -- sound -------------------------------------------------------------------------------------

    def add(self, frame: tuple[int, ...]) -> None:
        self.job.frames.append(frame)
        self.sounds.append(frame[0])
        self.pending.append(frame)

    def is_due(self, group: int) -> bool:
        """Whether pending frames go to the codec now: a full group, the very first frame, or
        none to follow soon.
        """
        if not self.pending:
            return False
        return len(self.pending) >= group or not self._has_delivered or not self.job.can_step()

    def next_group(self, largest: int) -> int:
        count = min(len(self.pending), largest)
        return 1 << (count.bit_length() - 1) if count else 0

    def receive(self, samples: np.ndarray, frames: int) -> None:
        """Samples of the first ``frames`` pending frames."""
        del self.pending[:frames]
        levels = np.sqrt(np.square(samples.reshape(frames, -1)).mean(1))
        self.job.levels.extend(levels.tolist())
        self.has_sounded = self.has_sounded or bool(levels.max() > AUDIBLE)
        if self._is_cut and not self.pending:
            samples = samples.copy()
            samples[-FADE:] *= np.linspace(1, 0, FADE, dtype=np.float32)
            self._is_cut = False
        self._has_delivered = True
        self._ready.append(self._tempo.push(samples))

    def take(self, *, is_last: bool) -> np.ndarray:
        if is_last:
            self._ready.append(self._tempo.flush())
        taken = np.concatenate(self._ready) if self._ready else np.zeros(0, np.float32)
        self._ready = []
        return taken


def tail_of(job: Job, piece: tuple[int, int], longest: int) -> Tail | None:
    """The tail of ``piece``, from its first token to its last.

    Nothing says which frame speaks which token, so the sentence is taken to begin at the quietest
    frame near its share of the text. None where that would be longer than ``longest`` frames.
    """
    start, stop = piece
    inner = bisect_left(job.sentence_ends, stop)
    begin = job.sentence_ends[inner - 1] if inner else start
    begin = max(begin, start)
    if stop <= begin or not job.frames:
        return None
    first = 0
    if begin > start:
        guess = round(len(job.frames) * (begin - start) / (stop - start))
        low = max(1, guess - PAUSE_SEARCH)
        near = job.levels[low : guess + PAUSE_SEARCH + 1]
        first = low + int(np.argmin(near)) if near else guess
    frames = job.frames[first:]
    if not frames or len(frames) > longest:
        return None
    return Tail(tuple(job.tokens[begin:stop]), frames)
