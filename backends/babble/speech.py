"""One job's text and sound: text in, cut anywhere; frames out, the same ones however it was cut."""

import re
import zlib
from collections import deque

import numpy as np

from voice_worker import Word

# A longer word is spoken in pieces of this many characters, so that one without end is heard too.
LONGEST = 64
_WORD = re.compile(rf"\S{{1,{LONGEST}}}")


class Speech:
    """Rendered word by word, no earlier than a frame needs it.

    ``flavour`` is everything but the text that the sound depends on.
    """

    def __init__(self, *, rate: int, samples_per_char: int, flavour: str) -> None:
        self._rate, self._samples_per_char, self._flavour = rate, samples_per_char, flavour
        self._tail = ""  # the last word, as long as more of it may come
        self._tail_at = 0  # its position in the text
        self._is_text_ended = False
        self._words: deque[tuple[int, str]] = deque()
        self._queued = 0  # samples that the words in the deque will have
        self._buffer = np.zeros(0, dtype=np.float32)
        self._rendered = 0
        self._taken = 0
        self._timings: deque[tuple[Word, str]] = deque()

    @property
    def is_finished(self) -> bool:
        return self._is_text_ended and not self._words and not len(self._buffer)

    def feed(self, text: str) -> None:
        self._scan(self._tail + text)

    def finish_text(self) -> None:
        self._is_text_ended = True
        self._scan(self._tail)

    def can_fill(self, frame: int) -> bool:
        """True when a frame could be taken whole, or the text is complete."""
        return self._is_text_ended or len(self._buffer) + self._queued >= frame

    def take(self, frame: int) -> tuple[np.ndarray, list[tuple[Word, str]]]:
        """The next ``frame`` samples, fewer at the end, and the words that end in them, spelt."""
        parts, length = [self._buffer], len(self._buffer)
        while length < frame and self._words:
            parts.append(self._render(*self._words.popleft()))
            length += len(parts[-1])
        joined = np.concatenate(parts)
        samples, self._buffer = joined[:frame], joined[frame:]
        self._taken += len(samples)
        words = []
        while self._timings and round(self._timings[0][0].end * self._rate) <= self._taken:
            words.append(self._timings.popleft())
        return samples, words

    def _scan(self, text: str) -> None:
        kept = len(text)
        for found in _WORD.finditer(text):
            is_whole = found.end() < len(text) or len(found[0]) == LONGEST or self._is_text_ended
            if not is_whole:
                kept = found.start()
                break
            self._words.append((self._tail_at + found.start(), found[0]))
            self._queued += self._length(found[0])
        self._tail = text[kept:]
        self._tail_at += kept

    def _length(self, word: str) -> int:
        return (len(word) + 1) * self._samples_per_char

    def _render(self, at: int, word: str) -> np.ndarray:
        length = self._length(word)
        self._queued -= length
        start, self._rendered = self._rendered, self._rendered + length
        timing = Word(at, at + len(word), start / self._rate, self._rendered / self._rate)
        self._timings.append((timing, word))
        hertz = 110 + zlib.crc32(f"{self._flavour}/{at}/{word}".encode()) % 440
        time = np.arange(length, dtype=np.float32) / self._rate
        return (0.2 * np.sin(np.float32(2 * np.pi * hertz) * time)).astype(np.float32)
