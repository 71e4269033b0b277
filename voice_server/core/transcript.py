"""What of a turn's text has been heard: the map from samples back to the agent's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Speech is about this fast; used only where a segment's length is not known yet.
CHARS_PER_SECOND = 15.0
SAMPLE_RATE = 24_000


@dataclass(frozen=True, slots=True)
class Heard:
    """``spoken + remaining`` is the turn's text as the agent sent it.

    ``is_exact``: the cut comes from word timings, or falls between segments; else it was
    estimated from the proportion of the segment that was heard.
    """

    spoken: str
    remaining: str
    is_exact: bool


@dataclass(slots=True)
class _Span:
    """A segment's place in the cleaned text and in the turn's sound."""

    text: str
    start_char: int
    start: int
    samples: int = 0
    is_ended: bool = False
    words: list[tuple[int, int]] = field(default_factory=list)  # (end_char, end_sample)


class Transcript:
    """Segments are begun and ended in text order; characters count in the cleaned text.

    ``has_words``: the backend tells every word by the time its sound is complete, so that one it
    has not told was not heard whole.
    """

    def __init__(self, *, has_words: bool = False) -> None:
        self._has_words = has_words
        self._spans: list[_Span] = []

    def begin(self, text: str, start_char: int, start: int) -> None:
        """``text`` is spoken from sample ``start`` of the turn on."""
        self._spans.append(_Span(text, start_char, start))

    def extend(self, text: str) -> None:
        """More text of the segment begun last, whose text arrives while it is spoken."""
        self._spans[-1].text += text

    def add_words(self, words: list[tuple[int, int]]) -> None:
        """(end_char, end_sample) of words, counted from the start of the segment begun last."""
        self._spans[-1].words.extend(words)

    def add_samples(self, samples: int) -> None:
        self._spans[-1].samples += samples

    def end(self) -> None:
        self._spans[-1].is_ended = True

    def heard(self, samples: int, raw: str, raw_position: Callable[[int], int]) -> Heard:
        """Cut ``raw`` where ``samples`` samples of the turn have been heard."""
        position, is_exact = 0, True
        for span in self._spans:
            heard = samples - span.start
            if heard <= 0:
                break
            if span.is_ended and heard >= span.samples:
                position = span.start_char + len(span.text)
                continue
            if span.words or self._has_words:
                ends = [char for char, end in span.words if end <= heard]
                position = span.start_char + ends[-1] if ends else position
            else:
                chars = self._proportion(span, heard)
                position = span.start_char + chars if chars else position
                is_exact = False
            break
        cut = min(raw_position(position), len(raw)) if position else 0
        return Heard(raw[:cut], raw[cut:], is_exact)

    @staticmethod
    def _proportion(span: _Span, heard: int) -> int:
        """Characters heard, cut back to the end of a word."""
        expected = int(len(span.text) / CHARS_PER_SECOND * SAMPLE_RATE)
        total = span.samples if span.is_ended else max(span.samples, expected, 1)
        limit = int(len(span.text) * min(1.0, heard / max(total, 1)))
        ends = [m.end() for m in re.finditer(r"\S+", span.text) if m.end() <= limit]
        return ends[-1] if ends else 0
