"""Put what segments yield, synthesised side by side, back in the order of the text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class _Line(Generic[Item]):
    items: deque[Item] = field(default_factory=deque)
    is_held: bool = False
    is_finished: bool = False


class Sequencer(Generic[Item]):
    """Open segments in text order; push their items in any order; pop them in text order.

    A segment opened as held is a guess: nothing of it, nor of what follows, comes out until it is
    released.
    """

    def __init__(self) -> None:
        self._lines: dict[int, _Line[Item]] = {}  # insertion order is the order of the text

    def open(self, segment: int, *, is_held: bool = False) -> None:
        assert segment not in self._lines, f"segment {segment} opened twice"
        self._lines[segment] = _Line(is_held=is_held)

    def push(self, segment: int, item: Item) -> None:
        if line := self._lines.get(segment):  # else: dropped, and its sound is not wanted
            line.items.append(item)

    def finish(self, segment: int) -> None:
        if line := self._lines.get(segment):
            line.is_finished = True

    def release(self, segment: int) -> None:
        self._lines[segment].is_held = False

    def drop(self, segment: int) -> None:
        self._lines.pop(segment, None)

    def pop(self) -> tuple[int, Item | None] | None:
        """The next (segment, item), (segment, None) at a segment's end, or None: nothing yet."""
        for segment, line in self._lines.items():
            if line.is_held:
                return None
            if line.items:
                return segment, line.items.popleft()
            if line.is_finished:
                del self._lines[segment]
                return segment, None
            return None
        return None

    def clear(self) -> None:
        self._lines.clear()

    def __contains__(self, segment: int) -> bool:
        return segment in self._lines

    def __len__(self) -> int:
        return len(self._lines)
