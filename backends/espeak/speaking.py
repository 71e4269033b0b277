"""Speech as an iterator: the library speaks in a thread of its own and hands chunks over."""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from library import PITCH, RANGE, RATE, VOLUME, WORD_GAP, Event, Library
from options import Options

Heard = tuple[bytes, list[Event]]

# A callback brings 60 ms. The first goes alone: somebody waits for it. The next piece holds the
# first words, for who wants their times. Then 22 go in one piece, as much as one message holds:
# each piece costs as much on its way as it takes to make.
_MERGED = 22
_GROWTH = 8
# 5 s of sound: beyond that the library waits for whoever takes it.
_AHEAD = 3


@dataclass(frozen=True)
class Ended:
    """The last thing heard of a text."""

    error: Exception | None


@dataclass
class _Text:
    """A text on its way, shared by the two threads."""

    text: str
    identifier: str
    options: Options
    heard: "queue.SimpleQueue[Heard | Ended]" = field(default_factory=queue.SimpleQueue)
    is_stopping: bool = False
    # Set when the first chunk is on its way. The second is not made before, or on a busy machine
    # the whole sentence would be, while the listener waits.
    gate: threading.Event = field(default_factory=threading.Event)
    is_begun: bool = False
    _merged: int = 1
    _sound: list[bytes] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)

    def take(self, samples: bytes, events: list[Event]) -> bool:
        """Called by the library. Returns True to stop it."""
        self._sound.append(samples)
        self._events += events
        if len(self._sound) >= self._merged:
            self._merged = min(_GROWTH * self._merged, _MERGED)
            self.hand_over()
        return self.is_stopping

    def hand_over(self) -> None:
        """What was made goes to whoever takes it."""
        while self.heard.qsize() > _AHEAD and not self.is_stopping:
            time.sleep(0.005)
        sound, events = b"".join(self._sound), self._events
        self._sound, self._events = [], []
        if self.is_stopping or not (sound or events):
            return
        self.heard.put((sound, events))
        if not self.is_begun and sound:
            self.is_begun = True
            self.gate.wait()


class Speaking:
    """One text at a time. ``speak`` from one thread only."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._texts: queue.SimpleQueue[_Text] = queue.SimpleQueue()
        self._voice = ""
        threading.Thread(target=self._serve, name="espeak", daemon=True).start()

    def speak(self, text: str, identifier: str, options: Options) -> Iterator[Heard]:
        """Sound and the events in it, as they are made. Closing the iterator stops the library."""
        task = _Text(text, identifier, options)
        self._texts.put(task)
        is_over = False
        try:
            while not is_over:
                sound, events, end = _take(task.heard)
                is_over = end is not None
                if sound:
                    yield sound, events
                    task.gate.set()
                if end is not None and end.error is not None:
                    raise end.error
        finally:
            if not is_over:
                task.is_stopping = True
                task.gate.set()
                while not isinstance(task.heard.get(), Ended):
                    pass

    def _serve(self) -> None:
        while True:
            task = self._texts.get()
            error: Exception | None = None
            try:
                self._run(task)
            except Exception as exc:
                error = exc
            task.hand_over()
            was_stopped = task.is_stopping
            task.heard.put(Ended(error))
            self._settle(was_stopped)

    def _run(self, task: _Text) -> None:
        if task.identifier != self._voice:
            self._voice = ""
            if not self._library.set_voice(task.identifier):
                raise RuntimeError(f"eSpeak NG cannot load the voice {task.identifier}")
            self._voice = task.identifier
        options = task.options
        # All of them, every time: nothing may leak from one job into the next.
        self._library.set_parameter(RATE, options.rate)
        self._library.set_parameter(PITCH, options.pitch)
        self._library.set_parameter(RANGE, options.range)
        self._library.set_parameter(VOLUME, options.volume)
        self._library.set_parameter(WORD_GAP, options.word_gap)
        self._library.speak(task.text, task.take, ssml=options.ssml)

    def _settle(self, was_stopped: bool) -> None:
        """Between two texts, when nobody waits: leave no trace of the last one.

        An echo runs on, SSML may have changed the voice, and a text that was stopped leaves its
        last sound in the filters of some voices; a whole one clears those.
        """
        if was_stopped:
            self._library.speak("hello.", _ignore)
        if self._voice and not self._library.set_voice(self._voice):
            self._voice = ""


def _take(heard: "queue.SimpleQueue[Heard | Ended]") -> tuple[bytes, list[Event], Ended | None]:
    """All that is there, at least one item: what was made while the last was on its way."""
    sound: list[bytes] = []
    events: list[Event] = []
    while not isinstance(item := heard.get(), Ended):
        sound.append(item[0])
        events += item[1]
        if heard.empty():
            return b"".join(sound), events, None
    return b"".join(sound), events, item


def _ignore(_samples: bytes, _events: list[Event]) -> bool:
    return False
