"""From the library's events to words: which characters, from when to when."""

from library import SAMPLE_RATE, WORD, Event
from text import Script

from voice_worker import Word


class WordTracker:
    """Events in, words out as soon as their end is known: the next word, or the clause's end.

    Numbers and abbreviations make several events for the same characters; those are one word.
    A word takes the punctuation around it along, but not across white space; in SSML, where that
    could be markup, it does not. Times never run back, though the library's do where SSML speeds
    it up beyond what it can speak itself.
    """

    def __init__(self, given: str, script: Script, *, ssml: bool, stretch: float) -> None:
        self._given, self._script, self._ssml = given, script, ssml
        self._scale = stretch / SAMPLE_RATE
        self._open: tuple[int, int, int] | None = None  # start, end in the text; sample
        self._covered = 0  # characters up to here belong to words that are done
        self._latest = 0  # sample

    def take(self, event: Event) -> list[Word]:
        """The words that this event ends."""
        start = self._place(event.position)
        sample = self._latest = max(event.sample, self._latest)
        if event.type != WORD:
            return self._close(sample, start)
        end = self._place(event.position + event.length)
        if self._ssml and self._given[start : start + 1] == ";":
            # An entity is announced by its last character.
            start, end = max(self._given.rfind("&", 0, start), self._covered), start + 1
        if self._open is not None and start < self._open[1]:
            return []
        done = self._close(sample, start)
        if not self._ssml:
            while start > self._covered and not self._given[start - 1].isspace():
                start -= 1
        self._open = (start, max(start, end), sample)
        return done

    def _place(self, position: int) -> int:
        return max(0, min(self._script.original(position), len(self._given)))

    def _close(self, sample: int, limit: int) -> list[Word]:
        """End the open word. It reaches as far as ``limit``, and over punctuation beyond it."""
        if self._open is None:
            return []
        start, end, begin = self._open
        self._open = None
        if not self._ssml:
            while end < len(self._given):
                char = self._given[end]
                if char.isspace() or (end >= limit and char.isalnum()):
                    break
                end += 1
        self._covered = end
        return [Word(start, end, begin * self._scale, sample * self._scale)]
