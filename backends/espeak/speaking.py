"""One text after the other through the library, which calls back with its sound."""

from library import PITCH, RANGE, RATE, VOLUME, WORD_GAP, Event, Library, Sink
from options import Options

# A callback brings 60 ms. The first goes alone: somebody waits for it. The next piece holds the
# first words, for who wants their times. Then 22 go in one piece, as much as one message holds:
# each piece costs as much on its way as it takes to make.
_MERGED = 22
_GROWTH = 8


class Pieces:
    """What the library calls: gathers its callbacks into pieces and hands those to ``heard``."""

    def __init__(self, heard: Sink) -> None:
        self._heard = heard
        self._merged = 1
        self._sound: list[bytes] = []
        self._events: list[Event] = []
        self.is_stopped = False

    def take(self, samples: bytes, events: list[Event]) -> bool:
        """Returns True to stop the library."""
        self._sound.append(samples)
        self._events += events
        if len(self._sound) >= self._merged:
            self._merged = min(_GROWTH * self._merged, _MERGED)
            self.flush()
        return self.is_stopped

    def flush(self) -> None:
        if self._sound and not self.is_stopped:
            sound, events = b"".join(self._sound), self._events
            self._sound, self._events = [], []
            self.is_stopped = self._heard(sound, events)


class Speaking:
    """One text at a time, with ``settle`` after each."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._voice = ""
        self._was_stopped = self._leaves_a_trace = False

    def speak(self, text: str, identifier: str, options: Options, heard: Sink) -> None:
        """Call ``heard`` with sound and the events in it, as they are made."""
        # Until the text is over: an error may leave it anywhere.
        self._was_stopped = self._leaves_a_trace = True
        if identifier != self._voice:
            self._voice = ""
            if not self._library.set_voice(identifier):
                raise RuntimeError(f"eSpeak NG cannot load the voice {identifier}")
            self._voice = identifier
        # All of them, every time: nothing may leak from one job into the next.
        self._library.set_parameter(RATE, options.rate)
        self._library.set_parameter(PITCH, options.pitch)
        widest = max(0, self._library.widest_range(options.pitch))
        self._library.set_parameter(RANGE, min(options.range, widest))
        self._library.set_parameter(VOLUME, options.volume)
        self._library.set_parameter(WORD_GAP, options.word_gap)
        pieces = Pieces(heard)
        self._library.speak(text, pieces.take, ssml=options.ssml)
        pieces.flush()
        self._was_stopped = pieces.is_stopped
        self._leaves_a_trace = self._was_stopped or options.ssml or "+" in identifier

    def settle(self) -> None:
        """Between two texts, when nobody waits: leave no trace of the last one.

        A variant's echo runs on, SSML may have changed the voice, and a text that was stopped
        leaves its last sound in the filters of some voices; a whole one clears those.
        """
        if not self._leaves_a_trace:
            return
        if self._was_stopped:
            self._library.speak("hello.", _ignore)
            self._was_stopped = False
        if self._voice and not self._library.set_voice(self._voice):
            self._voice = ""


def _ignore(_samples: bytes, _events: list[Event]) -> bool:
    return False
