"""What the client of one turn gets: sound in text order, cut to its lead, and messages between.

Segments are opened in text order; what workers yield comes in any order; ``take`` gives one
message or one frame at a time. Taking is sending: the listener's clock runs from there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from voice_server.core.errors import VoiceServerError
from voice_server.core.events import TurnOptions
from voice_server.core.playback import SAMPLE_RATE, Playback
from voice_server.core.sequencer import Sequencer
from voice_server.core.transcript import CHARS_PER_SECOND, Heard, Transcript

BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """PCM for one binary message; ``offset`` is the turn's sample at which it begins."""

    segment: int
    offset: int
    pcm: bytes


@dataclass(slots=True)
class _Segment:
    text: str
    start_char: int
    cut_at: float  # when its text was complete
    takes_text: bool
    is_guess: bool
    is_started: bool = False
    has_begun: bool = False
    start: int = 0  # sample of the turn at which it begins
    samples: int = 0
    covered: int = 0  # samples whose words were told
    told: int = 0  # characters told in ``words`` messages
    held: bytearray = field(default_factory=bytearray)  # sound whose words are not known yet
    arrived: int = 0  # bytes of PCM
    has_ended: bool = False  # nothing more will arrive
    error: VoiceServerError | None = None
    feeds: list[tuple[int, float]] = field(default_factory=list)  # (characters so far, time)


class Delivery:
    def __init__(self, options: TurnOptions, starts_at: float) -> None:
        self.playback = Playback(starts_at)
        self.ttfa: float | None = None
        self.errors = 0
        self.released = 0  # samples put into the outbox
        self.backlog = 0  # bytes of PCM held for the client
        self._options = options
        self._holds = options.timestamps and options.word_timing and options.words_first
        self._live: dict[int, _Segment] = {}
        self._sequencer: Sequencer[bytes | list[list[int]]] = Sequencer()
        self._transcript = Transcript(has_words=options.word_timing)
        # Views: what is cut off the front of a long piece is not copied each time.
        self._outbox: deque[dict[str, Any] | tuple[int, _Segment, memoryview]] = deque()

    # -- segments, in text order -----------------------------------------------------------------

    def open(self, segment: int, text: str, start_char: int, cut_at: float, *,
             is_guess: bool = False, takes_text: bool = False) -> None:  # fmt: skip
        """``text`` begins at ``start_char`` of the cleaned text. Guesses are held."""
        self._live[segment] = _Segment(text, start_char, cut_at, takes_text, is_guess)
        self._sequencer.open(segment, is_held=is_guess)

    def extend(self, segment: int, text: str, now: float) -> None:
        """More text of a segment that takes text while it is spoken."""
        live = self._live[segment]
        live.text += text
        live.feeds.append((len(live.text), now))
        if live.has_begun:
            self._transcript.extend(text)

    def confirm(self, segment: int, now: float) -> None:
        """The guess was right: let it out."""
        live = self._live[segment]
        live.is_guess, live.cut_at = False, now
        self._sequencer.release(segment)
        self._drain()

    def drop(self, segment: int) -> None:
        """The guess was wrong: forget it unheard."""
        self.backlog -= self._live.pop(segment).arrived
        self._sequencer.drop(segment)

    def __contains__(self, segment: int) -> bool:
        return segment in self._live

    def __len__(self) -> int:
        """Segments that were opened and have not ended, in text order."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Segments that no worker has yet; guesses do not count."""
        return sum(not live.is_started and not live.is_guess for live in self._live.values())

    # -- what workers yield ----------------------------------------------------------------------

    def start(self, segment: int) -> None:
        if live := self._live.get(segment):
            live.is_started = True

    def is_started(self, segment: int) -> bool:
        return (live := self._live.get(segment)) is not None and live.is_started

    def has_sound(self, segment: int) -> bool:
        """Whether any of its sound arrived, heard or not."""
        return (live := self._live.get(segment)) is not None and live.arrived > 0

    def text_of(self, segment: int) -> str:
        return self._live[segment].text

    def add_audio(self, segment: int, pcm: bytes) -> None:
        if live := self._live.get(segment):
            live.arrived += len(pcm)
            self.backlog += len(pcm)
            self._sequencer.push(segment, pcm)
            self._drain()

    def add_words(self, segment: int, words: list[list[int]]) -> None:
        if segment in self._live:
            self._sequencer.push(segment, words)
            self._drain()

    def end(self, segment: int, error: VoiceServerError | None) -> None:
        if live := self._live.get(segment):
            live.error, live.has_ended = error, True
            self._sequencer.finish(segment)
            self._drain()

    def due(self, segment: int) -> float:
        """When the listener runs dry of what comes before ``segment``; -inf before the start."""
        if not self.playback.has_started and not self.playback.dry_at:
            return -math.inf  # nobody listens yet, so there is no time to count from
        ahead = self.backlog / BYTES_PER_SAMPLE / SAMPLE_RATE
        for other, live in self._live.items():
            if other >= segment:
                break
            if not live.has_ended:
                arrived = live.arrived / BYTES_PER_SAMPLE / SAMPLE_RATE
                ahead += max(0.0, len(live.text) / CHARS_PER_SECOND - arrived)
        return self.playback.dry_at + ahead

    # -- what the client gets --------------------------------------------------------------------

    def tell(self, message: dict[str, Any]) -> None:
        """Put a message behind everything that waits."""
        self._outbox.append(message)

    @property
    def is_empty(self) -> bool:
        return not self._outbox

    def take(self, now: float) -> dict[str, Any] | Frame | None:
        """The next message or frame, or None: nothing yet."""
        if not self._outbox:
            return None
        item = self._outbox[0]
        if isinstance(item, dict):
            self._outbox.popleft()
            return item
        segment, live, _ = item
        pcm = self._cut(live, self.playback.next_frame(now) * BYTES_PER_SAMPLE)
        if self.ttfa is None:
            self.ttfa = max(0.0, now - live.cut_at)
        offset = self.playback.sent
        self.playback.send(len(pcm) // BYTES_PER_SAMPLE, now, self._owed_since(live))
        self.backlog -= len(pcm)
        return Frame(segment, offset, pcm)

    def heard(self, samples: int, raw: str, raw_position: Callable[[int], int]) -> Heard:
        """Which part of ``raw`` the listener has heard after ``samples`` samples of the turn."""
        return self._transcript.heard(samples, raw, raw_position)

    def clear(self) -> None:
        """Forget everything that was not taken."""
        self._outbox.clear()
        self._sequencer.clear()
        self._live.clear()
        self.backlog = 0

    # -- within ----------------------------------------------------------------------------------

    def _cut(self, live: _Segment, size: int) -> bytes:
        """At most ``size`` bytes of the segment that is first in the outbox.

        Small chunks that wait together leave together; a large one is cut.
        """
        pcm = b""
        while len(pcm) < size and self._outbox:
            item = self._outbox[0]
            if isinstance(item, dict) or item[1] is not live:
                break
            segment, _, waiting = item
            missing = size - len(pcm)
            pcm += waiting[:missing]
            if len(waiting) > missing:
                self._outbox[0] = (segment, live, waiting[missing:])
            else:
                self._outbox.popleft()
        return pcm

    def _owed_since(self, live: _Segment) -> float | None:
        """Since when the sound that is sent next was owed: its text was there."""
        if not live.takes_text:
            return live.cut_at
        spoken = (self.playback.sent - live.start) / SAMPLE_RATE * CHARS_PER_SECOND
        # A margin of two seconds of speech: engines look ahead, and the rate is an estimate.
        index = bisect_right(live.feeds, (int(spoken + 2 * CHARS_PER_SECOND), float("inf")))
        return live.feeds[index][1] if index < len(live.feeds) else None

    def _drain(self) -> None:
        while (popped := self._sequencer.pop()) is not None:
            segment, item = popped
            live = self._live[segment]
            if not live.has_begun:
                live.has_begun, live.start = True, self.released
                self._transcript.begin(live.text, live.start_char, live.start)
            if item is None:
                self._close(segment, live)
            elif isinstance(item, list):
                self._tell_words(segment, live, item)
            elif self._holds:
                live.held += item
                self._release_covered(segment, live)
            else:
                self._release(segment, live, item)

    def _release(self, segment: int, live: _Segment, pcm: bytes) -> None:
        samples = len(pcm) // BYTES_PER_SAMPLE
        live.samples += samples
        self.released += samples
        self._transcript.add_samples(samples)
        self._outbox.append((segment, live, memoryview(pcm)))

    def _release_covered(self, segment: int, live: _Segment) -> None:
        """Sound leaves only after the words that it holds were told."""
        covered = (live.covered - live.samples) * BYTES_PER_SAMPLE
        if covered > 0 and live.held:
            pcm = bytes(live.held[:covered])
            del live.held[:covered]
            self._release(segment, live, pcm)

    def _tell_words(self, segment: int, live: _Segment, words: list[list[int]]) -> None:
        self._transcript.add_words([(end_char, end) for _, end_char, _, end in words])
        if not self._options.timestamps or not words:
            return
        told = []
        for _, end_char, start, end in words:
            # The last word takes the punctuation behind it along.
            if not live.takes_text and not any(map(str.isalnum, live.text[end_char:])):
                end_char = len(live.text)
            told.append(self._word(live, end_char, start, end))
        self.tell({"type": "words", "segment": segment, "words": told})
        live.covered = words[-1][3]
        self._release_covered(segment, live)

    def _word(self, live: _Segment, end_char: int, start: int, end: int) -> dict[str, Any]:
        """A word with the separators before it, so that the joined texts are the segment's."""
        text = live.text[live.told : end_char]
        live.told = max(live.told, end_char)
        return {
            "text": text,
            "start_ms": round((live.start + start) * 1000 / SAMPLE_RATE),
            "end_ms": round((live.start + end) * 1000 / SAMPLE_RATE),
        }

    def _close(self, segment: int, live: _Segment) -> None:
        if 0 < live.told < len(live.text) and live.error is None:
            end = live.samples + len(live.held) // BYTES_PER_SAMPLE
            word = self._word(live, len(live.text), end, end)
            self.tell({"type": "words", "segment": segment, "words": [word]})
        if live.held:
            self._release(segment, live, bytes(live.held))
        self._transcript.end()
        if live.error is not None:
            self.errors += 1
            self.tell(_failure(segment, live.samples, live.error))
        if self._options.is_extended:
            duration = round(live.samples * 1000 / SAMPLE_RATE)
            self.tell({"type": "segment_done", "segment": segment, "duration_ms": duration})
        del self._live[segment]


def _failure(segment: int, delivered: int, error: VoiceServerError) -> dict[str, Any]:
    return {
        "type": "error",
        "msg": str(error),
        "code": error.code,
        "segment": segment,
        "retryable": error.retryable,
        "delivered_samples": delivered,
    }
