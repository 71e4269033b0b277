"""Which part of the raw text a position in the cleaned text came from.

Memory is one entry for each place where the two texts stop running side by side, so plain prose
costs nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left


class Positions:
    """Grows as text is emitted; ``raw_position`` answers for any offset emitted so far."""

    def __init__(self) -> None:
        # Entry i: cleaned text from _clean[i] on came from the raw text at _after[i]; what was
        # emitted before it ended at _before[i]. In between lies what nobody hears.
        self._clean = array("q")
        self._before = array("q")
        self._after = array("q")

    def jump(self, clean: int, before: int, after: int) -> None:
        """The cleaned text from ``clean`` on comes from ``after``; the text up to there ended at
        ``before``. Offsets never shrink from call to call."""
        if self._clean and self._clean[-1] == clean:
            self._after[-1] = after
        else:
            self._clean.append(clean)
            self._before.append(before)
            self._after.append(after)

    def raw_position(self, clean: int) -> int:
        """The raw offset of ``clean``: markup around it counts to what follows, except for marks
        that close what was said."""
        entry = bisect_left(self._clean, clean)
        if entry < len(self._clean) and self._clean[entry] == clean:
            return self._before[entry]
        raw = clean if entry == 0 else self._after[entry - 1] + clean - self._clean[entry - 1]
        return min(raw, self._before[entry]) if entry < len(self._clean) else raw

    def __len__(self) -> int:
        return len(self._clean)
