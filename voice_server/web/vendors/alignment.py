"""Times of words, spread over their characters: what ElevenLabs calls an alignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# From here on, scripts put no space between sentences.
_CJK = "\u2e80"


class Character(NamedTuple):
    """A character, and its milliseconds from the beginning of the turn."""

    char: str
    start: int
    end: int


class Alignment:
    """The words of one turn, in order.

    What separates two words takes the time between them, and a space separates two segments, whose
    own texts have none at their ends; the characters of a word share its time evenly. So the
    characters of a turn, joined, are its text, and their times never go back.
    """

    def __init__(self) -> None:
        self.end = 0
        """Milliseconds of the turn that characters were told for."""
        self._segment = 0
        self._last = ""

    def spread(self, message: Mapping[str, Any]) -> list[Character]:
        """The characters of a ``words`` message, see docs/protocol.md."""
        is_next = message["segment"] != self._segment
        self._segment = message["segment"]
        found: list[Character] = []
        for word in message["words"]:
            text: str = word["text"]
            if is_next and self._last < _CJK and not text[:1].isspace():
                text = f" {text}"
            is_next = False
            found += self._word(text, word)
            self._last = text[-1:] or self._last
        return found

    def _word(self, text: str, word: Mapping[str, Any]) -> Iterator[Character]:
        spoken = text.lstrip()
        separators = text[: len(text) - len(spoken)]
        start = max(self.end, word["start_ms"])
        end = max(start, word["end_ms"])
        if not spoken:
            separators, start = text, end
        yield from _evenly(separators, self.end, start)
        yield from _evenly(spoken, start, end)
        self.end = end


def _evenly(text: str, start: int, end: int) -> Iterator[Character]:
    bounds = [start + (end - start) * n // len(text) for n in range(len(text) + 1)] if text else []
    return map(Character, text, bounds, bounds[1:])
