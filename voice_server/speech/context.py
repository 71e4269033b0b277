"""Turns that follow one another in one voice: what one context of a socket is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from voice_server.audio.encode import Encoder, make_encoder
from voice_server.core import wire
from voice_server.core.delivery import Frame
from voice_server.core.errors import ProtocolMistake, RequestError, VoiceServerError
from voice_server.core.session import Phase
from voice_server.speech.output import Output
from voice_server.speech.route import Route
from voice_server.speech.turn import Turn

if TYPE_CHECKING:
    from voice_server.speech.service import SpeechService

NO_STATS = {"ttfa_ms": None, "audio_ms": 0, "segments": 0, "underruns": 0, "characters": 0}
NOTHING_HEARD = {"played_ms": 0, "text_spoken": "", "text_remaining": "", "exact": True}


class Context:
    """The first turn is heard while the last one takes text. Only ``speak`` raises."""

    def __init__(
        self,
        name: str | None,
        config: wire.Configure,
        service: SpeechService,
        output: Output,
        wake: Callable[[], None],
    ) -> None:
        self.name = name
        self.config = config
        self.route: Route | None = None
        self.has_ended = False  # no further turn is allowed
        self._has_spoken = False
        self._is_interrupted = False  # cancelled, and no further turn is allowed
        self._service = service
        self._output = output
        self._wake = wake
        self._turns: deque[Turn] = deque()
        # Engines are faster than people: turns that were sent whole are still to be heard.
        self._sent: deque[Turn] = deque()
        self._later: deque[tuple[Turn, dict[str, Any]]] = deque()  # to tell behind that turn
        # Rendered when they are sent, and not before: a position is of what went out.
        self._messages: deque[Callable[[], str | bytes]] = deque()
        self._encoder: Encoder | None = None

    @property
    def is_speaking(self) -> bool:
        return bool(self._turns)

    @property
    def is_heard(self) -> bool:
        """Somebody hears what was sent whole, and may interrupt it."""
        return self._heard is not None

    @property
    def is_quiet(self) -> bool:
        """Nothing is made, sent or heard, though a turn may wait for more text."""
        return not self.is_heard and all(turn.is_quiet for turn in self._turns)

    @property
    def is_over(self) -> bool:
        """Everything was said and sent."""
        return self.has_ended and self.is_idle

    @property
    def is_awaited(self) -> bool:
        """Its socket stays open for it: not so for one that was only configured."""
        return self._has_spoken or self.config.keep_open

    @property
    def turns(self) -> int:
        """Turns that are not over."""
        return len(self._turns)

    @property
    def is_idle(self) -> bool:
        """Nothing is being said or waits to be sent."""
        return not self._turns and not self._messages

    @property
    def characters(self) -> int:
        """Characters received of the turns that are not over."""
        return sum(turn.session.characters for turn in self._turns)

    def speak(self, event: wire.Token | wire.Flush | wire.Done) -> None:
        """Text, or the end of it. Raises ProtocolMistake, TooLarge, BusyError, RequestError."""
        assert self.route is not None
        turn = self._turns[-1] if self._turns else None
        if turn is None or turn.session.phase is not Phase.OPEN:
            if self._is_interrupted:
                return  # it was on its way when the user interrupted
            if self.has_ended:
                raise ProtocolMistake(
                    "text after done; ask for keep_open in the configuration to speak more turns"
                )
            match event:
                case wire.Flush():
                    return
                case wire.Done():
                    self._end_without_text()
                    return
            before = turn or (self._sent[-1] if self._heard else None)
            if before is None or before.session.is_cancelled:
                starts_at = 0.0
            else:
                starts_at = before.session.delivery.playback.dry_at
            turn = self._service.begin(self.route, self._wake, starts_at=starts_at)
            self._turns.append(turn)
            self._has_spoken = True
        turn.post(event)
        if isinstance(event, wire.Done):
            self.has_ended = not self.config.keep_open

    def played(self, event: wire.Played) -> None:
        """Where the listener is in the turn that is heard."""
        if (turn := self._heard or (self._turns[0] if self._turns else None)) is not None:
            turn.post(event)

    def cancel(self, event: wire.Cancel) -> None:
        """Stop every turn; the answer tells what was heard of the first."""
        self._encoder = None
        heard = self._heard
        self._sent.clear()
        self._later.clear()
        if heard is None and not self._turns:
            self.tell({"type": "cancelled", **NOTHING_HEARD})
            return
        self.has_ended = self._is_interrupted = not self.config.keep_open
        if heard is not None:
            answer = heard.session.heard(event.played, time.monotonic())
            while self._turns:
                self._end_turn(self._turns.pop())
            self.tell(answer)
            return
        while len(self._turns) > 1:
            self._end_turn(self._turns.pop())
        self._turns[0].post(event)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that belongs to no turn."""
        self._messages.append(partial(self._output.message, self.name, message))
        self._wake()

    def end(self, error: VoiceServerError | None = None) -> None:
        """Give up every turn, and what was not sent."""
        self._messages.clear()
        self._later.clear()
        while self._turns:
            turn = self._turns.popleft()
            turn.error = turn.error or error
            self._end_turn(turn)
        self.has_ended = True

    def next_message(self) -> str | bytes | None:
        """What to send next, or None: nothing yet."""
        while not self._messages and self._turns:
            turn = self._turns[0]
            item = turn.take()
            if item is not None:
                self._render(turn, item)
            if turn.is_over:
                self._encoder = None
                self._end_turn(self._turns.popleft())
                if not turn.session.is_cancelled:
                    self._keep_while_heard(turn)
                while self._later and self._later[0][0] is turn:
                    self.tell(self._later.popleft()[1])
            elif item is None:
                return None
        return self._messages.popleft()() if self._messages else None

    # -- within ----------------------------------------------------------------------------------

    @property
    def _heard(self) -> Turn | None:
        """The turn that was sent whole and, by its clock, is being heard now."""
        self._forget_heard()
        return self._sent[0] if self._sent else None

    def _forget_heard(self) -> None:
        now = time.monotonic()
        while self._sent and self._sent[0].session.delivery.playback.dry_at <= now:
            self._sent.popleft()

    def _keep_while_heard(self, turn: Turn) -> None:
        self._forget_heard()
        self._sent.append(turn)
        if self._turns:
            # Begun before this one was sent, it could not know how long it would last.
            self._turns[0].session.delivery.playback.follow(turn.session.delivery.playback)

    def _end_without_text(self) -> None:
        error = RequestError("done without any text; send tokens first", code="no_text")
        if not self.config.keep_open:
            raise error
        # The model had nothing to say, which is no reason to lose the socket.
        told = {"type": "error", "msg": str(error), "code": error.code, "retryable": False}
        for message in (told, {"type": "done", "stats": NO_STATS}):
            if self._turns:
                self._later.append((self._turns[-1], message))
            else:
                self.tell(message)

    def _render(self, turn: Turn, item: dict[str, Any] | Frame) -> None:
        fmt = self.config.format
        if isinstance(item, Frame):
            if self._encoder is None:
                self._encoder = make_encoder(fmt.encoding, fmt.sample_rate)
            segment, sound = item.segment, self._encoder.encode(item.pcm)
        else:
            segment, sound = max(0, turn.session.segments - 1), b""
            if item["type"] == "done" and self._encoder is not None:
                sound, self._encoder = self._encoder.finish(), None
        if sound:
            self._messages.append(partial(self._output.sound, self.name, segment, sound, fmt))
        if isinstance(item, dict):
            self._messages.append(partial(self._output.message, self.name, item))

    def _end_turn(self, turn: Turn) -> None:
        turn.close()
        self._service.end(turn)
