"""One listener's clock: what was sent, what has been heard, and when the sound will run out.

From the first frame on, sound is consumed in real time. Where the lead reached zero the clock
stands still until more is sent. A client that reports its position corrects the estimate.
"""

from __future__ import annotations

SAMPLE_RATE = 24_000
FIRST_FRAME = 480  # samples: 20 ms, so that the first sound leaves as soon as possible
LONGEST_FRAME = 4_800  # samples: 200 ms


class Playback:
    """Positions are samples at 24 kHz from the start of the turn; times are seconds."""

    __slots__ = ("_heard", "_since", "sent", "underruns")

    def __init__(self, starts_at: float = 0.0) -> None:
        """``starts_at``: when the listener can begin, if it is still busy with another turn."""
        self.sent = 0
        self.underruns = 0
        self._heard = 0.0
        self._since = starts_at  # when sample ``_heard`` was, or will be, played

    @property
    def has_started(self) -> bool:
        return self.sent > 0

    def follow(self, other: Playback) -> None:
        """The listener hears ``other`` to its end first; nothing of this one was sent yet."""
        self._since = other.dry_at

    def send(self, samples: int, now: float, owed_since: float | None) -> None:
        """``samples`` leave now. ``owed_since``: when their text was given to be synthesised.

        An underrun is a gap for which we are to blame: sound was owed before the lead ended.
        """
        dry_at = self.dry_at
        if now > dry_at:
            if self.sent and owed_since is not None and owed_since < dry_at:
                self.underruns += 1
            self._heard, self._since = float(self.sent), now
        self.sent += samples

    def report(self, samples: float, now: float) -> None:
        """The listener says that it is at sample ``samples``."""
        self._heard, self._since = min(max(samples, 0.0), float(self.sent)), now

    def heard(self, now: float) -> int:
        """How many samples the listener has heard."""
        elapsed = max(0.0, now - self._since) * SAMPLE_RATE
        return round(min(self.sent, self._heard + elapsed))

    @property
    def dry_at(self) -> float:
        """When the last sample that was sent will have been heard."""
        return self._since + (self.sent - self._heard) / SAMPLE_RATE

    def lead(self, now: float) -> float:
        """Seconds of sound that the listener holds and has not played."""
        return max(0.0, self.dry_at - now) if self.sent else 0.0

    def next_frame(self, now: float) -> int:
        """Samples that the next frame may hold: as long as the lead, so that it is never late."""
        if not self.sent:
            return FIRST_FRAME
        lead = int(self.lead(now) * SAMPLE_RATE)
        return min(LONGEST_FRAME, max(FIRST_FRAME, lead))
