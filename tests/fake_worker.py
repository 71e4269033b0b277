"""A worker without a process: speaks what a session asks for, chunk by chunk, when told to."""

from __future__ import annotations

import random
import re

import numpy as np

from voice_server.core import events as e
from voice_server.core.delivery import Frame
from voice_server.core.session import SpeechSession

SAMPLES_PER_CHAR = 100
CHUNK_CHARS = 4


def speak(text: str) -> bytes:
    """A hundred samples a character, each as loud as its code."""
    codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").astype("<i2")
    return bytes(np.repeat(codes, SAMPLES_PER_CHAR).tobytes())


def words_of(text: str) -> list[list[int]]:
    return [
        [m.start(), m.end(), m.start() * SAMPLES_PER_CHAR, m.end() * SAMPLES_PER_CHAR]
        for m in re.finditer(r"\S+", text)
    ]


class FakeWorkers:
    """Performs a session's commands. ``step`` lets one of the running jobs yield something."""

    def __init__(self, session: SpeechSession, chance: random.Random, *, has_words: bool) -> None:
        self.session = session
        self.now = 0.0
        self.spoken: dict[int, str] = {}  # confirmed segments, as they were given to a worker
        self.received: list[dict | Frame] = []
        self._chance = chance
        self._has_words = has_words
        self._jobs: dict[int, list[e.Event]] = {}
        self._open: dict[int, str] = {}

    def post(self, event: e.Event) -> None:
        for command in self.session.handle(event, self.now):
            self._perform(command)

    def step(self) -> bool:
        """One event of one running job. False when none runs."""
        ready = [segment for segment, events in self._jobs.items() if events]
        if not ready:
            return False
        segment = self._chance.choice(ready)
        event = self._jobs[segment].pop(0)
        if not self._jobs[segment] and segment not in self._open:
            del self._jobs[segment]
        self.post(event)
        return True

    def take(self) -> None:
        """Send everything that waits, as a socket without a queue would."""
        while (item := self.session.take(self.now)) is not None:
            self.received.append(item)
            for command in self.session.poll(self.now):
                self._perform(command)

    def finish(self) -> None:
        while self.step():
            self.now += 0.001
            self.take()
        self.take()

    @property
    def sound(self) -> bytes:
        return b"".join(item.pcm for item in self.received if isinstance(item, Frame))

    def messages(self, kind: str) -> list[dict]:
        return [i for i in self.received if isinstance(i, dict) and i["type"] == kind]

    def _perform(self, command: e.Command) -> None:
        match command:
            case e.Synthesize(segment, text):
                self.spoken[segment] = text
                self._jobs[segment] = self._events(segment, text)
            case e.Open(segment):
                self._open[segment] = ""
                self._jobs[segment] = [e.SegmentStarted(segment)]
            case e.Feed(segment, text):
                start = len(self._open[segment])
                self._open[segment] += text
                self._jobs[segment] += self._chunks(segment, text, start)[1:]
            case e.EndText(segment):
                self.spoken[segment] = self._open.pop(segment)
                self._jobs[segment].append(e.SegmentEnded(segment))
            case e.Drop(segment):
                del self.spoken[segment], self._jobs[segment]
            case e.CancelAll():
                self._jobs.clear()
                self._open.clear()

    def _events(self, segment: int, text: str) -> list[e.Event]:
        return [*self._chunks(segment, text, 0), e.SegmentEnded(segment)]

    def _chunks(self, segment: int, text: str, start: int) -> list[e.Event]:
        found: list[e.Event] = [e.SegmentStarted(segment)]
        words = words_of(text) if self._has_words and start == 0 else []
        for at in range(0, len(text), CHUNK_CHARS):
            end = at + CHUNK_CHARS
            if ready := [w for w in words if at < w[1] <= end]:
                found.append(e.WordsArrived(segment, ready))
            found.append(e.AudioArrived(segment, speak(text[at:end])))
        return found
