"""What is said, what white space stands between, and where every piece came from.

The bottom layer of the cleaner: it is told what to say and what was dropped, and writes the
cleaned text.
"""

from __future__ import annotations

from voice_server.core.text.positions import Positions

_NO_SPACE_BEFORE = frozenset(",.;:!?…)]}»”’、。，！？；：）」』")
_ENDS = frozenset(".!?…")
_STOPS = frozenset(",;:.!?…")
_STOPS_AND_SPACE = frozenset(",;:.!?… ")
_NO_SPACE_AFTER = frozenset("([{«“‘¿¡（「『")

NONE, SPACE, LINE = 0, 1, 2  # White space that stands between what was said and what comes.


class SpokenText:
    """The cleaned text of one turn, as it is written. Offsets into the raw text count from the
    start of the turn; ``at`` and ``end`` are places in what is held of it."""

    def __init__(self) -> None:
        self._positions = Positions()
        self._consumed = 0  # How much raw text came before what is held.
        self._emitted = 0
        self._raw_end = 0  # Where the raw text of what was emitted ends.
        self._delta = 0  # Raw offset minus cleaned offset, of the text emitted last.
        self._out: list[str] = []
        self._last = ""  # The character said last.
        # White space to come, and where it began.
        self._gap = NONE
        self._gap_at = 0
        self._is_fresh = True  # Nothing was said since the last empty line.
        self._is_line_empty = True
        self._is_cell_due = False  # A cell of a table ended.
        self._was_dropped = False  # Something was dropped that stood like a word.

    def raw_position(self, cleaned: int) -> int:
        """Where the raw text ends that produced the cleaned text up to the offset ``cleaned``.

        Both count characters from the start of the turn. Never falls as ``cleaned`` grows.
        Markup in front of a word belongs to the word, a mark that closes to what it closes.
        """
        if cleaned <= 0:
            return 0
        if cleaned >= self._emitted:
            return self._raw_end
        return min(self._positions.raw_position(cleaned), self._raw_end)

    def _say(self, text: str, start: int, count: int) -> None:
        """Emit ``text``, which stands for ``count`` raw characters from the offset ``start`` on."""
        if self._was_dropped and text[0] in _STOPS and count == len(text):
            kept = self._without_orphans(text, start)
            start, count = start + len(text) - len(kept), len(kept)
            if not kept:
                return
            text = kept
        if self._is_fresh:
            self._is_fresh = False
        elif self._gap or self._is_cell_due or self._was_dropped:
            self._say_gap(text[0])
        self._gap = NONE
        self._is_cell_due = self._was_dropped = self._is_line_empty = False
        self._emit(text, start, count)
        self._last = text[-1]

    def _without_orphans(self, text: str, start: int) -> str:
        """The text without the punctuation of what was dropped: "Yes. 😀!" ends at "Yes."."""
        at = 0
        while at < len(text) and text[at] in _STOPS_AND_SPACE:
            is_orphan = self._is_fresh or self._last in (_ENDS if text[at] in _ENDS else _STOPS)
            if text[at] == " ":
                if not self._gap:
                    self._gap, self._gap_at = SPACE, start + at
            elif not is_orphan:
                break
            at += 1
        return text[at:]

    def _say_gap(self, following: str) -> None:
        if self._is_cell_due:
            gap = " " if self._last in ".,:;!?" else ", "
        elif self._gap == LINE:
            gap = "\n"
        elif self._was_dropped and (
            following in _NO_SPACE_BEFORE
            or self._last in _NO_SPACE_AFTER
            or not (self._gap or (self._last.isalnum() and following.isalnum()))
        ):
            gap = ""
        else:
            gap = " "
        if gap:
            at = self._gap_at if self._gap else self._raw_end
            self._emit(gap, at, 1 if self._gap else 0)

    def _emit(self, text: str, start: int, count: int) -> None:
        if start - self._emitted != self._delta:
            self._positions.jump(self._emitted, self._raw_end, start)
            self._delta = start - self._emitted
        self._out.append(text)
        self._emitted += len(text)
        self._raw_end = start + count

    def _say_raw(self, raw: str, at: int, end: int) -> int:
        self._say(raw[at:end], self._consumed + at, end - at)
        return end

    def _pause(self, gap: int, at: int) -> None:
        """White space: it is emitted when something follows that is said."""
        if not self._gap:
            self._gap_at = self._consumed + at
        self._gap = max(self._gap, gap)

    def _break(self, at: int) -> None:
        """A paragraph ends: this is said at once, for it ends a segment."""
        if not self._is_fresh:
            start = self._gap_at if self._gap else self._consumed + at
            self._emit("\n\n", start, 0)
        self._is_fresh, self._gap, self._was_dropped, self._is_cell_due = True, NONE, False, False

    def _drop(self, end: int) -> int:
        """Something that stood like a word is not said."""
        self._was_dropped = True
        return end

    def _close(self, at: int, end: int) -> int:
        """A mark that closes what was said: it belongs to it."""
        if self._raw_end == self._consumed + at and not self._gap:
            self._raw_end += end - at
        return end

    def _say_instead(self, text: str, at: int, end: int) -> int:
        if text:
            self._say(text, self._consumed + at, end - at)
        return end
