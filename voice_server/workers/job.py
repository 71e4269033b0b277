"""One job of a pool: what to speak, for whom, and exactly how much of it was delivered.

    NEW ─submit→ WAITING ⇄ RUNNING ─→ OVER
                    ↑ broken │          ↑ done, failed, cancelled; from any state
                    └────────┘

A run on a worker is an *attempt*. Attempts that fail through no fault of the text are repeated;
the sink sees one unbroken stream of PCM whatever happened behind it. When the bytes differ on a
new attempt, the job is cut at a word and what follows is a new *part*, with a text and positions
of its own on the wire; the sink's positions go on.
"""

from __future__ import annotations

import enum
import logging
import zlib
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final, Protocol

from voice_server.core.errors import ProtocolMistake, VoiceServerError
from voice_server.core.poison import Blame
from voice_worker import messages as m

logger = logging.getLogger(__name__)

SAMPLE_RATE: Final = 24_000
UNLIMITED: Final = -1
# Nobody speaks faster. A stream with less sound than its text needs at this speed owes more, but
# for the last of it: a model may wait for the end of a sentence, or, where it goes on from a
# recording of ten seconds, for as much text as would take as long.
FASTEST_CHARS_PER_SECOND: Final = 40.0
LONGEST_WAIT_CHARS: Final = 400
# Of a part without one complete word so much may be heard twice: it is less than a word.
LONGEST_WORD: Final = 1 * SAMPLE_RATE
# A message must stay below the protocol's 1 MiB, at up to four bytes a character.
TEXT_PIECE: Final = 100_000


# Sound that is kept until its checksum is asked for, which it is only when a worker died. Jobs of
# segment engines end before: five seconds of sound.
UNSUMMED_BYTES: Final = 240_000


class Checksum:
    """The CRC-32 of all PCM that was added, worked out when it is needed."""

    __slots__ = ("_crc", "_held", "_held_bytes")

    def __init__(self) -> None:
        self._crc = 0
        self._held: list[bytes] = []
        self._held_bytes = 0

    def add(self, pcm: bytes) -> None:
        self._held.append(pcm)
        self._held_bytes += len(pcm)
        if self._held_bytes > UNSUMMED_BYTES:
            self.value()

    def value(self) -> int:
        for pcm in self._held:
            self._crc = zlib.crc32(pcm, self._crc)
        self._held.clear()
        self._held_bytes = 0
        return self._crc


class Sink(Protocol):
    """Who hears a job. Called on the event loop's thread; must be quick and must not raise."""

    def started(self) -> None:
        """The job was given to a worker for the first time."""

    def audio(self, pcm: bytes) -> None:
        """The next PCM: int16 little endian, mono, 24 kHz. In order, exactly once."""

    def words(self, words: list[list[int]]) -> None:
        """[char_start, char_end, start_sample, end_sample] in the job's whole text and audio.

        Called just before the ``audio`` that holds the last sample of these words.
        """

    def done(self, samples: int, timing: Mapping[str, float]) -> None:
        """All is said. ``timing``: ``waited`` for a slot, ``first`` and ``total`` in the worker."""

    def failed(self, error: VoiceServerError) -> None:
        """The job is over; ``error.delivered_samples`` of it were given to ``audio``."""


class JobState(enum.Enum):
    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


class Job:
    """What the caller of ``WorkerPool.submit`` makes, keeps and passes to its other methods.

    ``text`` None makes a job whose text follows through ``WorkerPool.feed``. ``voice`` and
    ``params`` as in ``Synthesize``. ``due`` answers, whenever it is asked, at which time of the
    loop's clock this listener runs dry, or ``schedule.NOT_STARTED``. ``deadline``: after this time
    of the loop's clock the job is not started and not tried again. ``credit``: samples a worker
    with several slots may send before the next ``WorkerPool.grant``; -1 is no limit.
    """

    __slots__ = (
        *("sink", "voice", "params", "seed", "due", "tenant", "deadline", "credit"),
        *("is_speculative", "is_first", "is_streaming", "is_text_ended"),
        *("number", "attempt", "state"),
        *("blame", "delivered", "quiet", "active", "has_sounded", "submitted_at", "lent_at"),
        *("chars", "_pieces", "_part_start", "_part_offset", "_crc", "_words", "_spoken", "_wait"),
    )

    def __init__(
        self,
        sink: Sink,
        voice: dict[str, Any],
        params: dict[str, Any],
        seed: int,
        *,
        text: str | None,
        due: Callable[[], float],
        tenant: str = "",
        speculative: bool = False,
        first: bool = True,
        deadline: float | None = None,
        credit: int = UNLIMITED,
    ) -> None:
        self.sink = sink
        self.voice = voice
        self.params = params
        self.seed = seed
        self.due = due
        self.tenant = tenant
        self.deadline = deadline
        self.credit = credit
        self.is_speculative = speculative
        self.is_first = first
        self.is_streaming = text is None
        self.is_text_ended = text is not None
        self.number = 0
        self.attempt = 0
        self.state = JobState.NEW
        self.blame = Blame()
        self.delivered = 0
        # Seconds without sound, and seconds in all, during which this attempt owed some.
        self.quiet = 0.0
        self.active = 0.0
        self.has_sounded = False  # on this attempt
        self.submitted_at = 0.0
        self.lent_at = 0.0
        self._pieces: list[str] = [] if text is None else [text]
        self.chars = len(text or "")
        self._part_start = 0  # where the text of this part begins in the whole
        self._part_offset = 0  # samples delivered before this part
        self._crc = Checksum()  # of the samples of this part
        self._words: list[list[int]] = []  # announced by the worker, their sound not yet here
        self._spoken: int | None = None  # where the last complete word of this part ends
        self._wait: float | None = None

    @property
    def text(self) -> str:
        """All text so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def is_over(self) -> bool:
        return self.state is JobState.OVER

    def add_text(self, text: str) -> None:
        """Remember text of a streaming job, so that it can be spoken again after a death.

        Raises ProtocolMistake after the text was ended, and for a job whose text was whole.
        """
        if self.is_text_ended:
            raise ProtocolMistake("the text of this job is complete; submit another job")
        self._pieces.append(text)
        self.chars += len(text)

    def begin_attempt(self, now: float, *, has_credit: bool) -> list[m.Message]:
        """The messages that give this job, as it stands, to a worker."""
        self.state = JobState.RUNNING
        self.attempt += 1
        self.lent_at = perf_counter()
        self.quiet = self.active = 0.0
        self.has_sounded = False
        self._words.clear()
        if self._wait is None:
            self._wait = now - self.submitted_at
        part = self.delivered - self._part_offset
        resume = {"samples": part, "crc": self._crc.value()} if part else None
        number, attempt, rest = self.number, self.attempt, self.text[self._part_start :]
        messages: list[m.Message]
        if self.is_streaming:
            messages = [m.Open(number, attempt, self.voice, self.params, self.seed, resume)]
            messages += text_messages(number, rest)
            if self.is_text_ended:
                messages.append(m.EndText(number))
        else:
            messages = [
                m.Synthesize(number, attempt, rest, self.voice, self.params, self.seed, resume)
            ]
        if has_credit and (credit := self.credit_message()) is not None:
            messages.append(credit)
        return messages

    def credit_message(self) -> m.Credit | None:
        """What to tell a worker with several slots; None when the job has no credit yet."""
        if self.credit == UNLIMITED:
            return m.Credit(self.number, UNLIMITED)
        credit = self.credit - self._part_offset
        return m.Credit(self.number, credit) if credit > 0 else None

    def owes_sound(self, *, has_credit: bool) -> bool:
        """Is it the worker's turn? Not while the job waits for text or for credit."""
        if has_credit and self.credit != UNLIMITED and self.delivered >= self.credit:
            return False
        if self.is_text_ended:
            return True
        needed = (self.chars - self._part_start - LONGEST_WAIT_CHARS) / FASTEST_CHARS_PER_SECOND
        return self.delivered - self._part_offset < needed * SAMPLE_RATE

    def take_audio(self, pcm: bytes) -> bool:
        """Hand PCM on. Returns False when the sink raised: then the job must be cancelled."""
        self.quiet = 0.0
        self.has_sounded = True
        self._crc.add(pcm)
        after = self.delivered + len(pcm) // 2
        if self._words and not self._say(after):
            return False
        self.delivered = after
        return self._call(self.sink.audio, pcm)

    def take_words(self, words: list[list[int]]) -> None:
        """Keep words until their sound is here, so that none is announced that is never heard."""
        chars, samples = self._part_start, self._part_offset
        for first, last, start, end in words:
            self._words.append([first + chars, last + chars, start + samples, end + samples])

    def finish(self, timing: Mapping[str, float]) -> None:
        """The worker is done: the last words, and the end."""
        self.state = JobState.OVER
        if not self._words or self._say(None):
            self._call(self.sink.done, self.delivered, {"waited": self._wait or 0.0, **timing})

    def fail(self, error: VoiceServerError) -> None:
        """Give up. Does nothing when the job is over."""
        if not self.is_over:
            self.state = JobState.OVER
            error.delivered_samples = self.delivered
            self._call(self.sink.failed, error)

    def start(self) -> bool:
        """Tell the sink, on the first attempt. Returns False when it raised."""
        return self.attempt > 1 or self._call(self.sink.started)

    def cut(self, *, has_word_timing: bool) -> bool:
        """Begin a new part after the last complete word. Returns False when none is known.

        What was delivered of the word after it is heard again, and nothing else.
        """
        if self._spoken is None:
            heard = self.delivered - self._part_offset
            if not has_word_timing or heard > LONGEST_WORD:
                return False
        else:
            self._part_start = self._spoken
            self._part_start += _separators(self.text[self._part_start :])
        self._part_offset = self.delivered
        self._crc = Checksum()
        self._words.clear()
        self._spoken = None
        return True

    @property
    def has_text_left(self) -> bool:
        """False when the part that begins here has nothing to say, now and later."""
        return not self.is_text_ended or self._part_start < self.chars

    def _say(self, upto: int | None) -> bool:
        """Announce the words that end by sample ``upto``; all of them for None."""
        due = [w for w in self._words if upto is None or w[3] <= upto]
        if not due:
            return True
        self._words = [w for w in self._words if not (upto is None or w[3] <= upto)]
        self._spoken = max(max(w[1] for w in due), self._spoken or 0)
        return self._call(self.sink.words, due)

    def _call(self, method: Callable[..., None], *args: Any) -> bool:
        try:
            method(*args)
        except Exception:
            logger.exception("the listener of job %d failed; the job is cancelled", self.number)
            return False
        return True


def text_messages(number: int, text: str) -> list[m.Message]:
    """``text`` in pieces that a message can hold. Empty text makes none."""
    pieces = range(0, len(text), TEXT_PIECE)
    return [m.Text(number, text[start : start + TEXT_PIECE]) for start in pieces]


def _separators(text: str) -> int:
    """How many characters at the start belong to no word: white space and closing punctuation."""
    return len(text) - len(text.lstrip(" \t\r\n,.;:!?…。、，！？；：)]}»”’\"'"))
