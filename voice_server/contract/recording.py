"""A sound like speech, for backends that clone: nobody's voice, no licence, the same every time."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import numpy as np

RATE: Final = 24_000
TRANSCRIPT: Final = "This is a recording that nobody made, of a voice that nobody has."
_FORMANTS: Final = ((700.0, 130.0), (1220.0, 170.0), (2600.0, 250.0))  # hertz, width: a vowel


def write_recording(path: Path, seconds: float = 8.0) -> None:
    """Write a mono 24 kHz WAV file: syllables at 4 a second over a pitch that wanders."""
    time = np.arange(round(RATE * seconds)) / RATE
    pitch = 120.0 + 25.0 * np.sin(2 * np.pi * 0.4 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        hertz = 120.0 * harmonic
        level = sum(1.0 / (1.0 + ((hertz - centre) / width) ** 2) for centre, width in _FORMANTS)
        sound += (level + 0.02) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4.0 * time) + 0.4, 0.0, 1.0)
    breath = 0.02 * np.random.default_rng(0).standard_normal(len(time))
    sound = sound * syllables + breath
    pcm = np.round(sound / np.abs(sound).max() * 0.7 * 32_767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.tobytes())
