"""PCM as every part of Voice Server sees it: mono, signed 16-bit little-endian, 24 kHz; and the
resampler that turns what a backend yields into it.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 24_000
BYTES_PER_SAMPLE = 2

Pcm = npt.NDArray[np.int16]
_Floats = npt.NDArray[np.float64]

# Samples and filter taps are rounded to multiples of a power of two and held in float64, in which
# sums of such numbers are exact in any order. So the result cannot depend on how BLAS blocks a
# product, and with that not on how the chunks were cut: a resumed segment has the same bytes.
_SAMPLE_GRID = 1.0 / (1 << 7)  # of an int16 step
_TAP_GRID = 1.0 / (1 << 20)
_CEILING = 4.0

# Zero crossings of the sinc on each side, at the lower of the two rates: 1.1 ms of look-ahead at
# 22,050 Hz, and images at least 70 dB down outside a transition band of 9 % of that rate.
_CROSSINGS = 24
_KAISER_BETA = 7.0
_GROUP = 32
_FINEST_BLOCK = 640
_PHASES = 1024
_AT_ONCE = 16_384  # inputs: long products are quicker, and the arrays still fit a cache


def to_pcm(samples: npt.NDArray[Any]) -> bytes:
    """Float samples in [-1, 1] (what is outside is clipped, NaN is silence) or int16, as PCM."""
    flat = np.asarray(samples).reshape(-1)
    if flat.dtype != np.int16:
        flat = _to_int16(_finite(flat) * 32767.0)
    return bytes(flat.astype("<i2", copy=False).tobytes())


class Resampler:
    """One stream of samples at ``rate`` hertz to PCM samples at 24 kHz, aligned at sample 0.

    A Kaiser-windowed sinc, polyphase. ``push`` and ``flush`` return int16; all that they return
    for n samples is ``round(n * 24000 / rate)`` long and does not depend on how the n were cut.
    At 24 kHz int16 passes through untouched. Raises ValueError for a rate outside 4000..192000.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._filter = None if rate == SAMPLE_RATE else _filter(rate)
        self._given = 0
        self._made = 0
        # The filter reaches back before the first sample, into silence.
        reach = self._filter.reach if self._filter else 0
        self._start = -reach  # position in the stream of the first sample in the buffer
        self._held = reach
        self._buffer = np.zeros(self._filter.span + _AT_ONCE if self._filter else 0)

    def push(self, samples: npt.NDArray[Any]) -> Pcm:
        """More samples, float32 in [-1, 1] or int16, any shape; what can be said by now."""
        flat = np.asarray(samples).reshape(-1)
        if self._filter is None:
            return flat if flat.dtype == np.int16 else _to_int16(_finite(flat) * 32767.0)
        self._given += len(flat)
        if len(flat) <= _AT_ONCE:
            return self._take(flat, self._filter.ready(self._given))
        before = self._given - len(flat)
        parts = []
        for start in range(0, len(flat), _AT_ONCE):
            part = flat[start : start + _AT_ONCE]
            parts.append(self._take(part, self._filter.ready(before + start + len(part))))
        return np.concatenate(parts)

    def flush(self) -> Pcm:
        """What the look-ahead held back. Ends the stream."""
        if self._filter is None:
            return np.zeros(0, dtype=np.int16)
        total = round(self._given * SAMPLE_RATE / self._rate)
        return self._take(np.zeros(2 * self._filter.reach + 2, dtype=np.int16), total)

    def _take(self, flat: npt.NDArray[Any], until: int) -> Pcm:
        assert self._filter is not None
        buffer, held = self._buffer, self._held + len(flat)
        if flat.dtype == np.int16:
            buffer[self._held : held] = flat
        else:
            fine = np.rint(_finite(flat) * (32768.0 / _SAMPLE_GRID))
            np.multiply(fine, _SAMPLE_GRID, out=buffer[self._held : held])
        self._held = held
        if until <= self._made:
            return np.zeros(0, dtype=np.int16)
        out = self._filter.apply(buffer, self._start, self._made, until)
        self._made = until
        used = self._filter.first_input(until) - self._start
        buffer[: held - used] = buffer[used:held]
        self._held -= used
        self._start += used
        return _to_int16(out)


class _Filter:
    """Output n at input position n * down / up, ``reach`` samples of input on each side of it.

    ``span``: how many inputs a stream holds at most beyond those just given, with room to read on.
    """

    def __init__(self, rate: int) -> None:
        divisor = gcd(rate, SAMPLE_RATE)
        self.up, self.down = SAMPLE_RATE // divisor, rate // divisor
        # Above 24 kHz the filter's cut-off is the output's Nyquist frequency, so it is wider.
        self._stretch = max(1.0, rate / SAMPLE_RATE)
        self.reach = int(np.ceil(_CROSSINGS * self._stretch)) + 1
        self.span = 4 * self.reach + 4

    def ready(self, given: int) -> int:
        """How many outputs need no input beyond the first ``given``."""
        last = given - 1 - self.reach
        return 0 if last < 0 else last * self.up // self.down + 1

    def first_input(self, output: int) -> int:
        """The earliest input that outputs from ``output`` on will touch."""
        return output * self.down // self.up - self.reach

    def apply(self, buffer: _Floats, start: int, first: int, until: int) -> _Floats:
        """Outputs ``first`` to ``until``; buffer[0] is the input at position ``start``."""
        raise NotImplementedError

    def taps(self, offsets: _Floats) -> _Floats:
        """The filter at these distances from its centre, in input samples; on the grid."""
        x = offsets / self._stretch
        window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1.0 - (x / _CROSSINGS) ** 2)))
        window[np.abs(x) > _CROSSINGS] = 0.0
        gain = 1.0 / (np.i0(_KAISER_BETA) * self._stretch)
        return np.asarray(np.rint(np.sinc(x) * window * gain / _TAP_GRID) * _TAP_GRID)


class _BlockFilter(_Filter):
    """For ratios of small numbers: blocks of outputs as a few matrix products.

    Outputs come in blocks of ``up * repeat``; a block's outputs are computed in groups of at most
    32, each group one product of [blocks, window] with [window, group].
    """

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        repeat = -(-_GROUP // self.up)
        self._outputs, self._inputs = self.up * repeat, self.down * repeat
        self._groups: list[tuple[slice, int, _Floats]] = []
        for begin in range(0, self._outputs, _GROUP):
            end = min(begin + _GROUP, self._outputs)
            positions = np.arange(begin, end) * self.down / self.up
            lowest = int(positions[0]) - self.reach
            window = np.arange(lowest, int(positions[-1]) + self.reach + 1)
            matrix = self.taps(window[:, None] - positions[None, :])
            self._groups.append((slice(begin, end), lowest + self.reach, matrix))
        # A block is computed whole, though its last outputs may lack their input and be dropped,
        # and its first ones theirs, which were dropped with those that were said before.
        self.span += 3 * self._inputs

    def first_input(self, output: int) -> int:
        return output // self._outputs * self._inputs - self.reach

    def apply(self, buffer: _Floats, start: int, first: int, until: int) -> _Floats:
        block = first // self._outputs
        count = -(-until // self._outputs) - block
        begin = block * self._inputs - self.reach - start
        out = np.empty((count, self._outputs))
        for columns, skip, matrix in self._groups:
            # A view of overlapping rows; as_strided makes the same one in ten times the time.
            windows: _Floats = np.ndarray(
                (count, len(matrix)),
                np.float64,
                buffer,
                (begin + skip) * 8,
                (self._inputs * 8, 8),
            )
            out[:, columns] = windows @ matrix
        offset = block * self._outputs
        said: _Floats = out.reshape(-1)[first - offset : until - offset]
        return said


class _AnyRateFilter(_Filter):
    """For awkward ratios (22,051 Hz): each output's taps interpolated from a table of phases."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate)
        self._window = np.arange(-self.reach, self.reach + 1)
        phases = np.arange(_PHASES + 1) / _PHASES
        self._table = self.taps(self._window[None, :] - phases[:, None])

    def apply(self, buffer: _Floats, start: int, first: int, until: int) -> _Floats:
        out = np.empty(until - first)
        for begin in range(first, until, 1024):
            end = min(begin + 1024, until)
            numerator = np.arange(begin, end) * self.down
            phase = (numerator % self.up) * (_PHASES / self.up)
            row = phase.astype(np.intp)
            weight = (phase - row)[:, None]
            taps = self._table[row] * (1.0 - weight) + self._table[row + 1] * weight
            taps = np.rint(taps / _TAP_GRID) * _TAP_GRID
            columns = (numerator // self.up - self.reach - start)[:, None] + np.arange(
                len(self._window)
            )
            out[begin - first : end - first] = np.einsum("ij,ij->i", buffer[columns], taps)
        return out


@lru_cache(maxsize=8)
def _filter(rate: int) -> _Filter:
    if not 4000 <= rate <= 192_000:
        raise ValueError(f"cannot resample from {rate} Hz; 4000 to 192000 are possible")
    is_small = SAMPLE_RATE // gcd(rate, SAMPLE_RATE) <= _FINEST_BLOCK
    return _BlockFilter(rate) if is_small else _AnyRateFilter(rate)


def _finite(flat: npt.NDArray[Any]) -> _Floats:
    clipped = flat.astype(np.float64).clip(-_CEILING, _CEILING)
    finite: _Floats = np.nan_to_num(clipped, copy=False, nan=0.0)
    return finite


def _to_int16(values: _Floats) -> Pcm:
    """Rounded and clipped, in place."""
    np.rint(values, out=values)
    values.clip(-32768.0, 32767.0, out=values)
    pcm: Pcm = values.astype(np.int16)
    return pcm
