"""What a worker prints: always drained, logged at a bounded rate, its last lines kept."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

TAIL_LINES: Final = 50
LINE_CHARS: Final = 500  # of a line that is logged or kept; progress bars know no end
_BURST: Final = 200.0  # lines logged at once
_RATE: Final = 50.0  # lines logged a second after that


class StderrLog:
    """Takes the bytes of one worker's stderr. ``tail`` holds its last lines."""

    def __init__(self, backend: str, pid: int) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._logger = logging.getLogger(f"voice_server.worker.{backend}")
        self._pid = pid
        self._partial = b""
        self._allowance = _BURST
        self._as_of = 0.0
        self._left_out = 0

    def feed(self, data: bytes, now: float) -> None:
        """Log the lines that ``data`` completes, as far as the rate allows."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > 1 << 16:
            lines.append(self._partial)
            self._partial = b""
        self._take(lines, now)

    def close(self, now: float) -> None:
        """The worker is gone: what it printed last may have no line end."""
        lines = [self._partial] if self._partial else []
        self._partial = b""
        self._take(lines, now)
        self._confess()

    def _take(self, lines: list[bytes], now: float) -> None:
        if not lines:
            return
        self._allowance = min(_BURST, self._allowance + (now - self._as_of) * _RATE)
        self._as_of = now
        allowed = int(min(self._allowance, len(lines)))
        self._allowance -= allowed
        if allowed and self._left_out:
            self._confess()
        for line in lines[:allowed]:
            if text := _readable(line):
                self._logger.info("[%d] %s", self._pid, text)
        self._left_out += len(lines) - allowed
        # A flood costs the decoding of what is kept, not of everything.
        self.tail.extend(text for line in lines[-TAIL_LINES:] if (text := _readable(line)))

    def _confess(self) -> None:
        if self._left_out:
            self._logger.info("[%d] … %d lines left out", self._pid, self._left_out)
            self._left_out = 0


def _readable(line: bytes) -> str:
    return line[-LINE_CHARS:].decode(errors="replace").rstrip()
