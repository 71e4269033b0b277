"""The figures of one turn as its listener had them, in one line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RATE = 24_000


@dataclass
class Report:
    """Fed while a turn is spoken; all times in seconds of ``time.perf_counter``."""

    began: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    first_sound: float | None = None
    longest_gap: float = 0.0
    frames: int = 0
    samples: int = 0
    errors: int = 0
    stats: Mapping[str, Any] = field(default_factory=dict)
    _last: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    @property
    def rtf(self) -> float:
        """Time until the last sound came, by how long the sound is."""
        return (self._last - self.began) / max(self.samples / RATE, 1 / RATE)

    def token(self) -> None:
        if self.first_token is None:
            self.first_token = time.perf_counter()

    def frame(self, pcm: bytes) -> None:
        now = time.perf_counter()
        if self.first_sound is None:
            self.first_sound = now
        else:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now
        self.frames += 1
        self.samples += len(pcm) // 2

    def line(self) -> str:
        """``first sound 3.1 ms · 5.20 s of sound in 0.04 s (RTF 0.008) · …``"""
        if self.first_sound is None:
            return "no sound: there was nothing to say" if not self.errors else "no sound"
        audio = self.samples / RATE
        took = self._last - self.began
        ttfa = self.stats.get("ttfa_ms")
        parts = [f"first sound {ttfa:.1f} ms after its text"] if ttfa is not None else []
        if self.first_token is not None:
            # The time it took is that of whoever wrote the text.
            parts.append(f"{(self.first_sound - self.first_token) * 1000:.0f} ms after token 1")
            parts.append(f"{audio:.2f} s of sound")
        else:
            parts.append(f"{audio:.2f} s of sound in {took:.2f} s (RTF {self.rtf:.3f})")
        parts.append(f"longest gap {self.longest_gap * 1000:.0f} ms")
        parts.append(f"underruns {self.stats.get('underruns', 0)}")
        return " · ".join(parts)
