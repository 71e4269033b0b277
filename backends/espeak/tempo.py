"""Faster or slower than eSpeak NG itself can speak, at the same pitch, by the sonic library that
is part of it.
"""

import ctypes as c

import numpy as np
from library import SAMPLE_RATE, Library

_BLOCK = 4096


class Tempo:
    """One stream of samples. ``push`` and ``flush`` return int16 samples."""

    def __init__(self, library: Library, speed: float) -> None:
        self._lib = library.raw
        self._lib.sonicCreateStream.restype = c.c_void_p
        self._stream = c.c_void_p(self._lib.sonicCreateStream(SAMPLE_RATE, 1))
        if not self._stream:
            raise MemoryError("no memory for a tempo filter")
        self._lib.sonicSetSpeed(self._stream, c.c_float(speed))
        self._out = np.empty(_BLOCK, dtype=np.int16)

    def push(self, samples: bytes) -> np.ndarray:
        self._lib.sonicWriteShortToStream(self._stream, samples, len(samples) // 2)
        return self._take()

    def flush(self) -> np.ndarray:
        self._lib.sonicFlushStream(self._stream)
        return self._take()

    def close(self) -> None:
        self._lib.sonicDestroyStream(self._stream)

    def _take(self) -> np.ndarray:
        parts = []
        pointer = self._out.ctypes.data_as(c.c_void_p)
        while count := self._lib.sonicReadShortFromStream(self._stream, pointer, _BLOCK):
            parts.append(self._out[:count].copy())
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)
