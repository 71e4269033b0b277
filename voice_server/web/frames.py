"""WebSocket messages that come and go whole, without the many steps of a general parser.

Nearly every message of a listener and of a tunnel is one frame of RFC 6455, section 5.2:

    FIN opcode │ MASK length │ longer length: 0, 2 or 8 bytes │ mask: 0 or 4 bytes │ payload

Those are read and written here. Whatever else may come, fragments, control frames and offences, is
cut out whole and left to the websockets library to judge.
"""

from __future__ import annotations

import os
import struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

__all__ = ["BINARY", "TEXT", "FrameReader", "apply_mask", "frame"]

TEXT: Final = 0x81
BINARY: Final = 0x82
"""The first byte of a message in one frame."""
_MASKED: Final = 0x80
_TWO, _EIGHT = struct.Struct("!BBH"), struct.Struct("!BBQ")


class FrameReader:
    """Cuts one direction of a connection at the ends of its frames."""

    def __init__(self, *, is_masked: bool, max_size: int) -> None:
        """``is_masked``: as what clients send. ``max_size``: bytes of a payload."""
        self._is_masked = is_masked
        self._max_size = max_size
        self._data, self._at = b"", 0
        self._more: list[bytes] = []  # what came since, until it makes a frame
        self._missing = 0
        self._is_in_fragments = False
        self._is_given_up = False

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
        else:
            self._more.append(data)
            self._missing -= len(data)

    def next(self) -> tuple[int, bytes] | None:
        """TEXT or BINARY and the payload, or 0 and a frame as it came; None until more is read.

        From a frame on that is too long all bytes come as they are: the library refuses it.
        """
        if self._more and self._missing <= 0:
            self._data = b"".join((self._data[self._at :], *self._more))
            self._at, self._more = 0, []
        at, size = self._at, len(self._data)
        if at == size or self._missing > 0:
            return None
        if not self._is_given_up:
            start, length = self._header(self._data, at)
            end = start + length
            if length <= self._max_size:
                if start == 0 or end > size:
                    self._missing = end - size if start else 1
                    return None
                self._at = end
                return self._frame(self._data, at, start, end)
            self._is_given_up = True
        self._at = size
        return 0, self._data[at:]

    def _frame(self, data: bytes, at: int, start: int, end: int) -> tuple[int, bytes]:
        first, is_masked = data[at], bool(data[at + 1] & _MASKED)
        if first in (TEXT, BINARY) and is_masked == self._is_masked and not self._is_in_fragments:
            payload = data[start:end]
            return first, apply_mask(payload, data[start - 4 : start]) if is_masked else payload
        is_last, opcode = first & 0x80, first & 0x0F
        if opcode < 8:  # no control frame
            self._is_in_fragments = not is_last
        return 0, data[at:end]

    @staticmethod
    def _header(data: bytes, at: int) -> tuple[int, int]:
        """Where the payload starts, and its length; zeroes while that is not known."""
        left = len(data) - at
        if left < 2:
            return 0, 0
        second = data[at + 1]
        length, start = second & 0x7F, at + 2
        if length >= 126:
            width = 2 if length == 126 else 8
            if left < 2 + width:
                return 0, 0
            length, start = int.from_bytes(data[start : start + width], "big"), start + width
        return start + 4 * (second >> 7), length


def frame(first: int, payload: bytes, *, is_masked: bool) -> bytes:
    """A message in one frame. ``first``: TEXT or BINARY."""
    length = len(payload)
    mask = _MASKED if is_masked else 0
    if length < 126:
        header = bytes((first, mask | length))
    elif length < 1 << 16:
        header = _TWO.pack(first, mask | 126, length)
    else:
        header = _EIGHT.pack(first, mask | 127, length)
    if not is_masked:
        return header + payload
    key = os.urandom(4)
    return header + key + apply_mask(payload, key)
