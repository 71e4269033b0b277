"""WebSocket messages that come and go whole, without the many steps of a general parser.

Nearly every message of a tunnel and of its listeners is one frame of RFC 6455, section 5.2:

    FIN opcode │ MASK length │ longer length: 0, 2 or 8 bytes │ mask: 0 or 4 bytes │ payload

Those are read and written here. Whatever else may come, fragments, control frames and offences, is
cut out whole and left to the websockets library to judge.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

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
        self._held: list[bytes] = []
        self._held_size = 0
        self._wanted = 0  # bytes that make a frame, as far as is known
        self._is_in_fragments = False
        self._is_given_up = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """What ``data`` completes: TEXT or BINARY and the payload, or 0 and a frame as it came.

        From a frame on that is too long all bytes come as they are: the library refuses it.
        """
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._wanted:
                return
            data, self._held = b"".join(self._held), []
        at, size = 0, len(data)
        while at < size and not self._is_given_up:
            start, length = self._header(data, at)
            end = start + length
            if length > self._max_size:
                self._is_given_up = True
            elif start == 0 or end > size:
                self._wanted = end - at if start else size - at + 1
                break
            else:
                yield self._frame(data, at, start, end)
                at = end
        if at < size:
            if self._is_given_up:
                yield 0, data[at:]
            else:
                self._held, self._held_size = [data[at:]], size - at

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
