"""The text side of one turn in a slot: which token comes next, and where the turn is cut.

Pure: lists of integers, no tensors. A turn is spoken in pieces; most turns are one.

        ┌──────── waiting ◀────────────────┐
        │   has enough text?               │ text left
        ▼                                  │
     speaking ── one token a frame ──▶ piece over ──▶ finished
        │                                            (no text left)
        └─ no token yet: not in the batch, costs nothing
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from .options import TurnOptions
from .text import Piece, TextFeed

# A sentence shorter than this is not worth a piece of its own: "Dr." ends like one.
MIN_SENTENCE_TOKENS = 4
# The package bars the end from the first two frames.
MIN_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a piece may be. ``soft_tokens``: cut at the next sentence; ``hard_tokens``: at the
    next word; an eighth more: anywhere. ``end`` and ``pad`` are the token fed when the text is
    over, and all after it.
    """

    length: int
    soft_tokens: int
    hard_tokens: int
    end: int
    pad: int
    end_before_text: bool = False

    @classmethod
    def for_length(cls, length: int, end: int, pad: int, *, end_before_text: bool) -> Limits:
        # Speech takes 3 to 5 frames a token; the last third of the context is a reserve.
        soft = max(8, length // 6)
        return cls(length, soft, soft + max(8, soft // 3), end, pad, end_before_text)


@dataclass(frozen=True, slots=True)
class Start:
    """How the next piece begins: ``stop`` is where its text is cut already, None if open."""

    stop: int | None
    with_bridge: bool


@dataclass(slots=True)
class Job:
    """One turn: its text so far, and the piece of it that is being spoken."""

    id: int
    slot: int
    options: TurnOptions
    text: TextFeed
    limits: Limits
    tokens: list[int] = field(default_factory=list)
    sentence_ends: list[int] = field(default_factory=list)
    word_starts: list[int] = field(default_factory=list)
    is_text_over: bool = False
    is_finished: bool = False
    # The piece being spoken: its tokens, what it swallows before its first frame, and its frames.
    piece: int = 0
    attempt: int = 0
    is_speaking: bool = False
    start: int = 0
    stop: int | None = None
    lead: tuple[int, ...] = ()
    bridge: int = 0
    base: int = 0
    launched: int = 0
    frames: list[tuple[int, ...]] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)

    # -- text ------------------------------------------------------------------------------------

    def feed(self, text: str) -> None:
        self._take(self.text.feed(text))

    def finish_text(self) -> None:
        self._take(self.text.finish())
        self.is_text_over = True
        if not self.is_speaking and self.start >= len(self.tokens):
            self.is_finished = True

    def _take(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.starts_word:
                self.word_starts.append(len(self.tokens))
            self.tokens.extend(piece.tokens)
            if piece.ends_sentence:
                self.sentence_ends.append(len(self.tokens))

    @property
    def end(self) -> int:
        return len(self.tokens) if self.stop is None else self.stop

    @property
    def is_closed(self) -> bool:
        """No more text joins this piece."""
        return self.stop is not None or self.is_text_over

    # -- pieces ----------------------------------------------------------------------------------

    def next_start(self, bridge: int, lead: int, *, is_bridge_optional: bool) -> Start | None:
        """How a piece can begin with the text there is; None: wait for more.

        A prompt that ends in speech (a clone's reference, the turn's own last sentence) has a
        bridge: frames that each swallow a token before the first sound. A sentence that does not
        fill it is spoken by itself, also where more text is there already: what a seed says must
        not depend on when the text came.
        """
        available = len(self.tokens) - self.start
        if available <= 0:
            return None
        if not bridge:
            return Start(None, with_bridge=False)
        swallowed = bridge - lead
        first = bisect_left(self.sentence_ends, self.start + MIN_SENTENCE_TOKENS)
        ends = self.sentence_ends[first : first + 1]
        if ends and ends[0] - self.start <= swallowed and not is_bridge_optional:
            return Start(ends[0], with_bridge=True)
        if self.is_text_over or available > swallowed:
            return Start(None, with_bridge=True)
        return Start(None, with_bridge=False) if is_bridge_optional else None

    def begin(self, start: Start, bridge: int, lead: tuple[int, ...], prompt_length: int) -> None:
        self.is_speaking = True
        self.stop = start.stop
        self.bridge, self.lead, self.base = bridge, lead, prompt_length
        self.launched = 0
        self.frames, self.levels = [], []

    def begin_again(self) -> None:
        """The same piece once more, with other random numbers."""
        self.attempt += 1
        self.is_speaking = False
        self.stop = None
        self.frames = []

    def end_piece(self, *, is_cut: bool) -> None:
        """The model ended the piece, or it was cut. What it was not given is left to the next."""
        # The end is a frame too: it took a token and is not among the frames.
        fed = self.bridge + len(self.frames) + (not is_cut) - len(self.lead)
        # At least one, so that a turn always comes to its end.
        self.start = min(self.end, self.start + max(1, fed))
        self.is_speaking = False
        self.stop = None
        self.piece += 1
        self.is_finished = self.is_text_over and self.start >= len(self.tokens)

    # -- tokens ----------------------------------------------------------------------------------

    def token_at(self, index: int) -> int | None:
        """The text token of position ``index`` of this piece; None while it has not arrived."""
        if index < len(self.lead):
            return self.lead[index]
        at = self.start + index - len(self.lead)
        self._roll_over(at)
        if at < self.end:
            return self.tokens[at]
        if not self.is_closed:
            return None
        return self.limits.end if at == self.end else self.limits.pad

    def _roll_over(self, at: int) -> None:
        """Close the piece before token ``at`` when the context will not hold much more."""
        spoken = at - self.start
        if self.stop is not None or spoken < self.limits.soft_tokens:
            return
        hard = self.limits.hard_tokens
        is_late = spoken >= hard and (_holds(self.word_starts, at) or spoken >= hard + hard // 8)
        if is_late or _holds(self.sentence_ends, at):
            self.stop = at

    def next_token(self) -> int | None:
        """The token of the next frame; None while the piece has to wait for it."""
        return self.token_at(self.bridge + self.launched)

    @property
    def position(self) -> int:
        """Where in the slot the next frame's keys go."""
        return self.base + self.bridge + self.launched

    @property
    def is_full(self) -> bool:
        return self.position >= self.limits.length

    @property
    def may_end(self) -> bool:
        """Whether the next frame may be the end: not before its text has been given to it."""
        if self.launched < MIN_FRAMES:
            return False
        fed = self.start + self.bridge + self.launched - len(self.lead)
        return self.limits.end_before_text or (self.is_closed and fed >= self.end)

    def can_step(self) -> bool:
        """Whether there is a frame to make. Costs nothing to ask."""
        if not self.is_speaking:
            return False
        return self.is_full or self.next_token() is not None

    def fed_tokens(self) -> int:
        """Tokens of text this piece has been given."""
        fed = self.bridge + self.launched - len(self.lead)
        return max(0, min(self.end - self.start, fed))


def _holds(ascending: list[int], value: int) -> bool:
    index = bisect_right(ascending, value)
    return index > 0 and ascending[index - 1] == value
