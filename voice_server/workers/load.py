"""How fast a pool speaks, averaged over its last jobs: what admission control reckons with."""

from __future__ import annotations

from dataclasses import dataclass

_MEMORY = 0.98  # the weight of the past when one more job is counted
_FIRST_MEMORY = 0.9
# Seconds of sound that must have been made before they tell how fast a backend is: what a word
# alone costs is what the machine did meanwhile.
_ENOUGH = 2.0
_ASSUMED = 20.0  # seconds of sound for which what a backend says of itself counts


@dataclass(frozen=True, slots=True)
class Capacity:
    """``rtf``: slot-seconds for one second of audio, None while little was made. ``first``: seconds
    from a slot to its first sound. ``streams``: listeners that all slots together can serve in
    real time, one for each slot while nothing is known or where jobs are paced by credit.
    """

    slots: int
    rtf: float | None
    first: float | None
    streams: float


class Load:
    """Takes what each finished job cost."""

    def __init__(self) -> None:
        self._slot_seconds = 0.0
        self._audio_seconds = 0.0
        self._first: float | None = None

    def assume(self, rtf: float | None) -> None:
        """What a backend measured of itself, if it did, counts beside its first jobs."""
        if rtf is not None and not self._audio_seconds:
            self._slot_seconds, self._audio_seconds = _ASSUMED * rtf, _ASSUMED

    def add(self, slot_seconds: float, audio_seconds: float, first: float | None) -> None:
        """Count a job. Sums are weighed, not ratios, so that long jobs count for more."""
        if audio_seconds <= 0.0:
            return
        self._slot_seconds = self._slot_seconds * _MEMORY + slot_seconds
        self._audio_seconds = self._audio_seconds * _MEMORY + audio_seconds
        if first is not None:
            known = first if self._first is None else self._first
            self._first = known * _FIRST_MEMORY + first * (1.0 - _FIRST_MEMORY)

    def capacity(self, slots: int, *, is_paced: bool) -> Capacity:
        """What ``slots`` slots can do. ``is_paced``: jobs last as long as their sound is heard."""
        is_known = self._audio_seconds >= _ENOUGH
        rtf = self._slot_seconds / self._audio_seconds if is_known else None
        streams = float(slots) if rtf is None or is_paced else slots / max(rtf, 1e-6)
        return Capacity(slots, rtf, self._first, streams)
