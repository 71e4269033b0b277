"""Faster or slower speech at the same pitch, as a stream: overlap-add at the best match (WSOLA).

After Verhelst and Roelands, "An overlap-add technique based on waveform similarity" (1993).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

WINDOW = 720  # 30 ms at 24 kHz
HOP = WINDOW // 2
SEARCH = 180  # 7.5 ms to either side


class Tempo:
    """Feed samples, get samples; ``flush`` gives the rest. At speed 1 they pass untouched."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._input = np.zeros(0, np.float32)
        self._base = 0
        self._count = 0
        self._expected: Samples | None = None
        self._overlap = np.zeros(HOP, np.float32)
        self._fade = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)

    def push(self, samples: Samples) -> Samples:
        if self._speed == 1.0:
            return samples
        self._input = np.concatenate([self._input, samples])
        return self._run()

    def flush(self) -> Samples:
        if self._speed == 1.0 or self._base + len(self._input) == 0:
            return np.zeros(0, np.float32)
        total = round((self._base + len(self._input)) / self._speed)
        self._input = np.concatenate([self._input, np.zeros(WINDOW + 2 * SEARCH, np.float32)])
        rest = np.concatenate([self._run(), self._overlap])
        return rest[: max(0, total - (self._emitted - len(rest) + HOP))]

    @property
    def _emitted(self) -> int:
        return self._count * HOP

    def _run(self) -> Samples:
        out = []
        while True:
            target = round(self._count * HOP * self._speed) - self._base
            if target + WINDOW + SEARCH + HOP > len(self._input):
                break
            start = self._best_start(target)
            window = self._input[start : start + WINDOW] * self._fade
            if self._expected is None:
                # Nothing precedes the first window: its first half goes out as it is.
                window[:HOP] = self._input[start : start + HOP]
            out.append(self._overlap + window[:HOP])
            self._overlap = window[HOP:]
            self._expected = self._input[start + HOP : start + HOP + WINDOW].copy()
            self._count += 1
            self._forget()
        return np.concatenate(out) if out else np.zeros(0, np.float32)

    def _best_start(self, target: int) -> int:
        """Where the input best continues what was said last, near ``target``."""
        if self._expected is None:
            return max(target, 0)
        low = max(target - SEARCH, 0)
        region = self._input[low : target + SEARCH + WINDOW]
        match = np.correlate(region, self._expected, "valid")
        energy = np.convolve(region**2, np.ones(WINDOW, np.float32), "valid")
        return low + int(np.argmax(match / np.sqrt(energy + 1e-6)))

    def _forget(self) -> None:
        keep = max(0, round(self._count * HOP * self._speed) - self._base - SEARCH)
        keep = min(keep, len(self._input))
        self._input = self._input[keep:]
        self._base += keep
