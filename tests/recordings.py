"""Recordings for tests, generated: a voice-like tone whose pitch proves which sample arrived.

For the engines' own environments too: nothing of the server is imported.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 24_000


def tone(
    seconds: float = 3.0, pitch: float = 200.0, level: float = 0.3, rate: int = RATE
) -> npt.NDArray[np.int16]:
    """Harmonics of a voice, rising and falling four times a second as syllables do."""
    t = np.arange(int(seconds * rate)) / rate
    voiced = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6)) / 1.7
    shaped = voiced * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)) * level * 32767
    return np.asarray(shaped, np.float64).astype(np.int16)


def wav(seconds: float = 3.0, pitch: float = 200.0, level: float = 0.3, rate: int = RATE) -> bytes:
    """The tone as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(tone(seconds, pitch, level, rate).tobytes())
    return buffer.getvalue()


def record(path: Path, seconds: float = 3.0, **sound: Any) -> Path:
    """The tone as a file at ``path``; ``sound`` is :func:`wav`'s."""
    path.write_bytes(wav(seconds, **sound))
    return path


def pitch_of(pcm: npt.NDArray[np.int16]) -> float:
    """The strongest frequency, hertz."""
    window = pcm.astype(np.float64) * np.hanning(len(pcm))
    return float(np.argmax(np.abs(np.fft.rfft(window)))) * RATE / len(pcm)


def container(
    fmt: str,
    codec: str | None,
    rate: int = RATE,
    video: str | None = None,
    seconds: float = 3.0,
    pitch: float = 200.0,
) -> bytes:
    """The tone in any container, with moving pictures beside it if ``video`` names a codec."""
    import av

    buffer = io.BytesIO()
    out = av.open(buffer, "w", format=fmt)
    pictures = None
    if video:
        pictures = out.add_stream(video, rate=10)
        pictures.width = pictures.height = 64  # type: ignore[attr-defined]
        pictures.pix_fmt = "yuv420p"  # type: ignore[attr-defined]
    sound = out.add_stream(codec, rate=rate, layout="mono") if codec else None  # type: ignore[call-overload]
    if pictures is not None:
        for i in range(int(seconds * 10)):
            image = np.full((64, 64, 3), i * 7 % 255, np.uint8)
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))  # type: ignore[attr-defined]
        out.mux(pictures.encode(None))  # type: ignore[attr-defined]
    if sound is not None:
        pcm = tone(seconds, pitch)
        for start in range(0, len(pcm), 1_920):
            piece = pcm[start : start + 1_920].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    out.close()
    return buffer.getvalue()
