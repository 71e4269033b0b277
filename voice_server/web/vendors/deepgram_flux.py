"""Deepgram's Flux (``/v2/speak``), message by message: turns that can be interrupted.

https://developers.deepgram.com/docs/flux-tts

    Speak ─▶ SpeechStarted ─▶ sound ─▶ Flush ─▶ Flushed ─▶ sound ─▶ SpeechMetadata
                                  └─▶ Interrupt ─▶ SpeechInterrupted, with what was heard

Turns that are flushed while another one is spoken wait behind it. Offsets count from the start of
the session; an Interrupt moves the session's end to what was heard.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from voice_server.core import wire
from voice_server.web.vendors.channel import Ours
from voice_server.web.vendors.deepgram_speak import VERSION, DeepgramTranslation, bad

_KEPT: Final = 16  # turns of which an Interrupt may tell what was heard
_CONTROLS: Final = {"pronunciations_applied": 0, "breaks_applied": 0, "pronunciation_warnings": 0}


@dataclass(slots=True)
class _Turn:
    """``start``: where it begins in the session's sound. Milliseconds."""

    start: float = 0.0
    duration: float = 0.0
    characters: int = 0
    id: str = field(default_factory=lambda: f"dg_sp_{secrets.token_hex(6)}")

    def figures(self) -> dict[str, Any]:
        return {
            "speech_id": self.id,
            "audio_duration_ms": round(self.duration),
            "input_character_count": self.characters,
            "billable_character_count": self.characters,
            "controls_applied": _CONTROLS,
        }


class FluxTranslation(DeepgramTranslation):
    """``/v2/speak``: Speak, Flush, Interrupt, Configure, Close. ``has_speed``: of the backend."""

    has_speed = False

    def __init__(
        self, asked: wire.Configure, model: str, number: str, subprotocol: str | None
    ) -> None:
        super().__init__(asked, model, number, subprotocol)
        self._turns: deque[_Turn] = deque()  # not ended; the first is being spoken
        self._told: deque[_Turn] = deque(maxlen=_KEPT)  # ended, and perhaps still heard
        self._bytes_per_ms = asked.format.sample_rate * asked.format.sample_bytes / 1000
        self._heard_ms = 0.0  # of the session, in its sound
        self._floor = 0.0  # what the last Interrupt established
        self._interrupt: float | None = None  # where, while it is under way
        self._is_interrupting = False
        self._configuration: list[Ours] = []  # for the next turn that begins in silence
        self._characters = 0

    def _greeting(self, number: str, model_id: str) -> dict[str, Any]:
        named = {"model_name": self.model, "model_version": VERSION, "model_uuids": [model_id]}
        return {"type": "Connected", "request_id": number, **named}

    # -- in --------------------------------------------------------------------------------------

    def _take(self, kind: str, message: dict[str, Any]) -> Sequence[Ours]:
        match kind:
            case "Flush":
                if not self._is_open:
                    self._warn("NO_ACTIVE_SPEECH", "there is no text to flush")
                    return [{}]
                self._reply({"type": "Flushed", "speech_id": self._turns[-1].id})
                return self._ended()
            case "Interrupt":
                return self._interrupted(message)
            case "Configure":
                return self._configured(message)
        raise bad(f"type: expected Speak, Flush, Interrupt, Configure or Close, got {kind[:40]!r}")

    def _spoken(self, message: dict[str, Any]) -> list[Ours]:
        begins = not self._is_open
        asked = super()._spoken(message)
        if not self._is_open:
            return asked
        if begins:
            # Between two turns a configuration is allowed, and at no other time.
            if not self._turns:
                asked, self._configuration = [*self._configuration, *asked], []
            self._turns.append(_Turn())
            if len(self._turns) == 1:
                self._reply(*self._next())
        self._turns[-1].characters += len(message["text"])
        self._characters += len(message["text"])
        return asked

    def _interrupted(self, message: dict[str, Any]) -> Sequence[Ours]:
        offset = _offset(message)
        if self._is_interrupting:
            self._warn("INTERRUPT_IN_PROGRESS", "an earlier Interrupt is not answered yet")
        elif not self._heard_ms:
            self._warn("NO_AUDIO_GENERATED", "there is nothing to interrupt")
        elif offset is not None and offset <= self._floor:
            self._warn("INVALID_INTERRUPT_OFFSET", "the offset counts from the session's start")
        else:
            played = {}
            if offset is not None:
                offset = min(offset, self._heard_ms)
                played = {"played_ms": offset - self._heard(offset).start}
            self._is_interrupting, self._interrupt = True, offset
            self._doom()
            return [{"cancel": True, **played}]
        return [{}]

    def _configured(self, message: dict[str, Any]) -> Sequence[Ours]:
        speed: Any = message.get("speed")
        told: dict[str, Any] = {"type": "ConfigureSuccess", "applied": {"speed": speed}}
        if not self.has_speed:
            told = _refused("SPEED_NOT_SUPPORTED", "this voice has one speed")
        elif type(speed) not in (int, float):
            told = _refused("SPEED_OUT_OF_RANGE", "expected a number from 0.5 to 1.5")
        elif not 0.5 <= speed <= 1.5:
            told = _refused("SPEED_OUT_OF_RANGE", "expected 0.5 to 1.5", speed)
        else:
            self._configuration = [{"opts": {**self.defaults.opts, "speed": speed}}]
        self._reply(told)
        return [{}]

    # -- out -------------------------------------------------------------------------------------

    def _hear(self, pcm: bytes) -> None:
        length = len(pcm) / self._bytes_per_ms
        self._heard_ms += length
        if self._turns:
            self._turns[0].duration += length

    def _end(self, done: Ours) -> list[dict[str, Any]]:
        if not self._turns:
            return []
        turn = self._turns.popleft()
        self._count_end()
        self._told.append(turn)
        told: list[dict[str, Any]] = [{"type": "SpeechMetadata", **turn.figures()}]
        if not turn.duration:
            told.insert(0, _warning("NO_SYNTHESIZABLE_TEXT", "nothing in it can be spoken"))
        return [*told, *self._next()]

    def _cancelled(self, cancelled: Ours) -> list[dict[str, Any]]:
        spoken, remaining = cancelled["text_spoken"], cancelled["text_remaining"]
        offset, self._interrupt, self._is_interrupting = self._interrupt, None, False
        turn = self._heard(self._heard_ms if offset is None else offset)
        if offset is None:
            offset = turn.start + cancelled["played_ms"]
        for _ in range(self._count_cancelled()):
            self._turns.popleft()
        self._told.clear()
        if not spoken and not remaining:
            told = [_warning("NO_ACTIVE_SPEECH", "all of it was heard already")]
        else:
            self._floor = self._heard_ms = offset
            told = [
                {
                    "type": "SpeechInterrupted",
                    "audio_played_ms": round(offset),
                    "text_spoken": spoken,
                    "text_remaining": remaining,
                    "metadata": turn.figures(),
                }
            ]
        return [*told, *self._next()]

    def _last(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "SessionMetadata",
                "total_audio_duration_ms": round(self._heard_ms),
                "total_input_character_count": self._characters,
                "total_billable_character_count": self._characters,
            }
        ]

    # -- within ----------------------------------------------------------------------------------

    def _heard(self, offset: float) -> _Turn:
        """The turn that sounds at ``offset``: the last one that begins before it."""
        begun = [turn for turn in (*self._told, *self._turns) if turn.start <= offset]
        return begun[-1] if begun else _Turn()

    def _next(self) -> list[dict[str, Any]]:
        """The turn that is spoken from now on, if there is one."""
        if not self._turns:
            return []
        self._turns[0].start = self._heard_ms
        return [{"type": "SpeechStarted", "speech_id": self._turns[0].id}]

    def _warn(self, code: str, description: str) -> None:
        self._reply(_warning(code, description))

    def _reply(self, *messages: dict[str, Any]) -> None:
        self.replies.extend(map(json.dumps, messages))


def _offset(message: dict[str, Any]) -> float | None:
    """Milliseconds of the session that the client has played. Raises RequestError."""
    offset = message.get("playback_offset")
    if offset is None:
        return None
    if isinstance(offset, dict) and offset.get("type", "time_ms") == "time_ms":
        value: Any = offset.get("value")
        if type(value) in (int, float) and 0 <= value < 1e9:
            return float(value)
    raise bad('playback_offset: expected {"type": "time_ms", "value": 1840}')


def _warning(code: str, description: str) -> dict[str, Any]:
    return {"type": "Warning", "code": code, "description": description}


def _refused(code: str, description: str, value: float | None = None) -> dict[str, Any]:
    told = {"type": "ConfigureFailure", "code": code, "field": "speed", "description": description}
    return told if value is None else {**told, "value": value}
