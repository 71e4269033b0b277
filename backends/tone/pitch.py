"""The fundamental frequency of a recording, by the normalised square difference of its frames.

Method: P. McLeod, G. Wyvill, "A smarter way to find pitch" (2005).
"""

import wave
from pathlib import Path

import numpy as np

from voice_worker import BackendError
from voice_worker.failure import reason_of

LOWEST, HIGHEST = 55.0, 1100.0
CLEAR = 0.6


def of_file(path: Path) -> float:
    """Hertz, the median over the file's clear frames. Raises BackendError when there are none."""
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as exc:
        why = f"cannot read {path.name}: {reason_of(exc)}"
        raise BackendError(why, code="bad_sample") from exc
    if width != 2:
        raise BackendError(f"{path.name} must be 16-bit PCM", code="bad_sample")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels)[:, 0].astype(np.float64)
    size = int(rate * 4 / LOWEST)
    frames = [samples[at : at + size] for at in range(0, len(samples) - size + 1, size // 2)]
    found = [hertz for frame in frames if (hertz := of_frame(frame, rate)) is not None]
    if not found:
        raise BackendError(f"{path.name} holds no clear pitch to imitate", code="bad_sample")
    return float(np.median(found))


def of_frame(frame: np.ndarray, rate: int) -> float | None:
    """Hertz, or None when the frame is silent or noise."""
    frame = frame - frame.mean()
    size = len(frame)
    # The sample rate of 1 kHz tones leaves 24 lags a period: interpolate the spectrum's product.
    spectrum = np.fft.rfft(frame, 2 * size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:size]
    squares = np.concatenate([[0.0], np.cumsum(frame**2)])
    energy = squares[size:0:-1] + squares[size] - squares[:size]
    if squares[size] < size:
        return None
    likeness = 2.0 * correlation / np.maximum(energy, 1e-9)
    first, last = int(rate / HIGHEST), int(rate / LOWEST)
    inner = likeness[1:-1]
    peaks = 1 + np.flatnonzero((inner > likeness[:-2]) & (inner >= likeness[2:]))
    peaks = peaks[(peaks >= first) & (peaks <= last)]
    if not len(peaks) or likeness[peaks].max() < CLEAR:
        return None
    # The first peak that is nearly the best: later ones are multiples of the same period.
    lag = int(peaks[likeness[peaks] >= 0.9 * likeness[peaks].max()][0])
    before, here, after = likeness[lag - 1 : lag + 2]
    return float(rate / (lag + 0.5 * (before - after) / (before - 2 * here + after)))
