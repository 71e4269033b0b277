"""One turn, without IO: what happened comes in with its time, what to do comes out.

         Done            every segment ended
 OPEN ─────────▶ ENDING ────────────────────▶ OVER
   │                │                          ▲
   └──── Cancel ────┴──────────────────────────┘

``handle`` returns commands for the workers; ``take`` gives what the client shall receive.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any

from voice_server.core.delivery import Delivery, Frame
from voice_server.core.errors import ProtocolMistake, TooLarge, VoiceServerError
from voice_server.core.events import (
    AudioArrived,
    CancelAll,
    Command,
    Confirm,
    Drop,
    EndText,
    Event,
    Feed,
    Open,
    SegmentEnded,
    SegmentStarted,
    Synthesize,
    Tick,
    TurnOptions,
    WordsArrived,
)
from voice_server.core.playback import SAMPLE_RATE
from voice_server.core.segmenter import SPEAKABLE, Cut, Segmenter
from voice_server.core.text.cleaning import Cleaner
from voice_server.core.wire import Cancel, Done, Flush, Played, Token

# Marks before a turn's first word that go with it: quotation marks, brackets, dots.
_MARKS_CHARS = 32
# What may be the fault of one text. Any other refusal is one of the turn: its voice, its options.
_FAULTS_OF_TEXT = frozenset({"synthesis_failed", "poison_text"})


class Phase(enum.Enum):
    OPEN = "open"
    ENDING = "ending"
    OVER = "over"


class SpeechSession:
    """One turn. Not task-safe: exactly one owner calls ``handle`` and performs its commands."""

    def __init__(self, options: TurnOptions, *, starts_at: float = 0.0) -> None:
        """``starts_at``: when the listener will have heard the turn before this one."""
        self.options = options
        self.phase = Phase.OPEN
        self.deadline: float | None = None  # when a Tick is due
        self.characters = 0
        self.segments = 0
        self.is_cancelled = False
        self.delivery = Delivery(options, starts_at)
        self._cleaner = Cleaner(tags=options.tags, ssml=options.ssml, cast=options.cast)
        self._segmenter = Segmenter(
            max_chars=options.max_segment_chars,
            first_clause=not options.streams_text,
            language=options.language,
        )
        self._raw: list[str] = []
        self._clean_length = 0
        self._pending: deque[tuple[Cut, float]] = deque()  # with the time of the cut
        self._guess: tuple[int, Cut] | None = None
        self._next = 0
        self._job: int | None = None  # the job that takes text, of a text-streaming backend
        self._job_fed = 0
        self._marks = ""  # what stands before the job's first word
        self._is_refused = False  # the backend will not speak this turn, whatever more is said

    # -- in --------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event, return what the workers shall do, in order.

        Raises ProtocolMistake for text after the end, TooLarge for too much of it.
        """
        match event:
            case AudioArrived(segment, pcm):
                self.delivery.add_audio(segment, pcm)
            case Token(text):
                return self._take_text(text, now)
            case WordsArrived(segment, words):
                self.delivery.add_words(segment, words)
            case SegmentStarted(segment):
                self.delivery.start(segment)
                if self._guess is None or self._guess[0] != segment:
                    self._announce(segment)
            case SegmentEnded(segment, error):
                if segment == self._job:
                    self._job = None  # text that is still to come opens another
                    self._is_refused = self._is_refusal(segment, error)
                self.delivery.end(segment, error)
                self._settle()
                return self.poll(now)
            case Played(seconds):
                self.delivery.playback.report(seconds * SAMPLE_RATE, now)
            case Flush():
                self._require_open("flush")
                return self._flush(now)
            case Done():
                self._require_open("done")
                return self._finish(now)
            case Cancel(played):
                return self._cancel(played, now)
            case Tick():
                if self.deadline is not None and now >= self.deadline:
                    return self._flush(now)
        return []

    # -- out -------------------------------------------------------------------------------------

    def take(self, now: float) -> dict[str, Any] | Frame | None:
        """The next message or frame for the client, or None: nothing yet.

        Taking is sending: the listener's clock runs from here. Call ``poll`` when room was made.
        """
        item = self.delivery.take(now)
        # The figures are those of the moment at which it leaves.
        if isinstance(item, dict) and item["type"] == "done":
            return {**item, "stats": self.stats}
        return item

    def poll(self, now: float) -> list[Command]:
        """Segments that the room in the backlog allows now."""
        is_waiting = self._pending or self._segmenter.guess is not None
        return self._dispatch(now) if is_waiting and self.phase is not Phase.OVER else []

    def abort(self, message: dict[str, Any]) -> list[Command]:
        """End the turn with an error message: no sound follows it."""
        self._clear()
        self.delivery.tell(message)
        return [CancelAll()]

    @property
    def has_news(self) -> bool:
        """There is something to take, or the turn is over."""
        return not self.delivery.is_empty or self.phase is Phase.OVER

    @property
    def is_over(self) -> bool:
        """True when nothing more comes and everything was taken."""
        return self.phase is Phase.OVER and self.delivery.is_empty

    @property
    def stats(self) -> dict[str, Any]:
        """The figures of the ``done`` message."""
        ttfa = self.delivery.ttfa
        return {
            "ttfa_ms": None if ttfa is None else round(ttfa * 1000, 3),
            "audio_ms": round(self.delivery.released * 1000 / SAMPLE_RATE),
            "segments": self.segments,
            "underruns": self.delivery.playback.underruns,
            "characters": self.characters,
        }

    # -- text ------------------------------------------------------------------------------------

    def _take_text(self, text: str, now: float) -> list[Command]:
        self._require_open("token")
        if not text:
            return []
        if self.characters + len(text) > self.options.max_turn_chars:
            raise TooLarge(
                f"a turn has at most {self.options.max_turn_chars} characters; "
                "send done and begin another"
            )
        self.characters += len(text)
        self._raw.append(text)
        clean = self._cleaner.push(text)
        commands = self._push(clean, now) if clean else []
        self._set_deadline(now)
        return commands

    def _push(self, clean: str, now: float) -> list[Command]:
        start, self._clean_length = self._clean_length, self._clean_length + len(clean)
        cuts = self._segmenter.push(clean)
        if self.options.streams_text:
            return self._feed(clean, start, now) + self._end_sentences(cuts)
        return self._cut(cuts, now)

    def _flush(self, now: float) -> list[Command]:
        clean = self._cleaner.flush()
        commands = self._push(clean, now) if clean else []
        cuts = self._segmenter.flush()
        if self.options.streams_text:
            commands += self._end_sentences(cuts) + self._end_job()
        else:
            commands += self._cut(cuts, now)
        self.deadline = None
        return commands

    def _finish(self, now: float) -> list[Command]:
        commands = self._flush(now)
        self.phase = Phase.ENDING
        self._settle()
        return commands

    def _set_deadline(self, now: float) -> None:
        delay = self.options.max_delay
        # A job that takes text may keep its last words until more comes, or the end of it.
        is_waiting = self._job is not None or self._segmenter.has_pending
        if delay is None or not is_waiting:
            self.deadline = None
        elif self._segmenter.guess is not None:
            self.deadline = now + min(delay, self.options.confirm_delay)
        else:
            self.deadline = now + delay

    def _require_open(self, what: str) -> None:
        if self.phase is not Phase.OPEN:
            raise ProtocolMistake(
                f"{what} after done; ask for keep_open in the configuration to speak more turns"
            )

    # -- segments, for backends that speak one at a time -----------------------------------------

    def _cut(self, cuts: list[Cut], now: float) -> list[Command]:
        commands: list[Command] = []
        likely = self._segmenter.guess
        if not (cuts or likely or self._guess or self._pending):
            return commands  # most text is in the middle of a sentence
        if self._guess is not None:
            segment, guess = self._guess
            if cuts and (cuts[0].text, cuts[0].start) == (guess.text, guess.start):
                cuts = cuts[1:]
                commands.append(self._confirm(segment, now))
            elif cuts or likely is None or likely.text != guess.text:
                commands.append(self._drop(segment))
        for cut in cuts:
            self._pending.append((cut, now))
        return commands + self._dispatch(now)

    def _dispatch(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while self._pending and self._has_room():
            commands.append(self._begin(*self._pending.popleft(), is_guess=False))
        guess = self._segmenter.guess
        if (
            guess is not None
            and not self.options.streams_text
            and self.phase is Phase.OPEN
            and self._guess is None
            and not self._pending
            and self._has_room()
        ):
            commands.append(self._begin(guess, now, is_guess=True))
        return commands

    def _has_room(self) -> bool:
        return (
            len(self.delivery) < self.options.lookahead
            and self.delivery.backlog < self.options.backlog
        )

    def _begin(self, cut: Cut, cut_at: float, *, is_guess: bool) -> Synthesize:
        segment, self._next = self._next, self._next + 1
        self.delivery.open(segment, cut.text, cut.text_start, cut_at, is_guess=is_guess)
        if is_guess:
            self._guess = segment, cut
        else:
            self.segments += 1
        text = cut.text
        if not self.options.normalizes:
            from voice_server.core.text.normalisation import normalise

            text = normalise(text, self.options.language)
        return Synthesize(segment, text, is_guess, self._cleaner.speaker_at(cut.text_start))

    def _confirm(self, segment: int, now: float) -> Confirm:
        self._guess = None
        self.segments += 1
        self._announce(segment)
        self.delivery.confirm(segment, now)
        return Confirm(segment)

    def _drop(self, segment: int) -> Drop:
        self._guess = None
        self.delivery.drop(segment)
        self._next = segment
        return Drop(segment)

    # -- jobs that take text while they speak ----------------------------------------------------

    def _feed(self, clean: str, start: int, now: float) -> list[Command]:
        commands: list[Command] = []
        if self._job is None:
            if self._is_refused:
                return []
            text = (self._marks + clean).lstrip()
            # Without a word there is nothing to say: a model would make a noise of its own.
            if SPEAKABLE.search(clean) is None:
                self._marks = text[-_MARKS_CHARS:]
                return []
            self._marks = ""
            self._job, self._next, self._job_fed = self._next, self._next + 1, 0
            start_char = start + len(clean) - len(text)
            self.delivery.open(self._job, "", start_char, now, takes_text=True)
            commands.append(Open(self._job))
            clean = text
        self.delivery.extend(self._job, clean, now)
        self._job_fed += len(clean)
        return [*commands, Feed(self._job, clean)]

    def _is_refusal(self, segment: int, error: VoiceServerError | None) -> bool:
        """Whether another job of this turn would be answered as this one was."""
        if error is None or error.retryable or self.delivery.has_sound(segment):
            return False
        return error.code not in _FAULTS_OF_TEXT

    def _end_sentences(self, cuts: list[Cut]) -> list[Command]:
        if self._is_refused:
            return []
        for cut in cuts:
            self.segments += 1
            self._tell_generating(max(0, self._next - 1), cut.text)
        # Roll over at the end of a sentence, before the job is full.
        limit = self.options.job_chars
        return self._end_job() if cuts and limit and self._job_fed > 0.75 * limit else []

    def _end_job(self) -> list[Command]:
        job, self._job, self._job_fed, self._marks = self._job, None, 0, ""
        return [] if job is None else [EndText(job)]

    # -- messages and the end --------------------------------------------------------------------

    def _announce(self, segment: int) -> None:
        if not self.options.streams_text and self.delivery.is_started(segment):
            self._tell_generating(segment, self.delivery.text_of(segment))

    def _tell_generating(self, segment: int, sentence: str) -> None:
        depth = len(self._pending) + self.delivery.waiting
        message = {"type": "generating", "sentence": sentence, "queue_depth": depth}
        self.delivery.tell({**message, "segment": segment})

    def _settle(self) -> None:
        if self.phase is Phase.ENDING and not len(self.delivery) and not self._pending:
            self.phase = Phase.OVER
            self.delivery.tell({"type": "done"})

    def _cancel(self, played: float | None, now: float) -> list[Command]:
        if self.is_over:
            return []
        message = self.heard(played, now)
        if not self.is_cancelled:  # else its answer waits to be taken, and this one follows
            self._clear()
        self.is_cancelled = True
        self.delivery.tell(message)
        return [CancelAll()]

    def heard(self, played: float | None, now: float) -> dict[str, Any]:
        """The ``cancelled`` message of an interruption at this moment; changes nothing else.

        ``played``: the seconds that the listener has heard, if that is known.
        """
        playback = self.delivery.playback
        if played is not None:
            playback.report(played * SAMPLE_RATE, now)
        samples = playback.heard(now)
        heard = self.delivery.heard(samples, "".join(self._raw), self._cleaner.raw_position)
        return {
            "type": "cancelled",
            "played_ms": round(samples * 1000 / SAMPLE_RATE),
            "text_spoken": heard.spoken,
            "text_remaining": heard.remaining,
            "exact": heard.is_exact,
        }

    def _clear(self) -> None:
        self.phase = Phase.OVER
        self.deadline = None
        self._pending.clear()
        self._guess = self._job = None
        self.delivery.clear()
