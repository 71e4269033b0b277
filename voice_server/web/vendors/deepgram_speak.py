"""Deepgram's ``/v1/speak`` over a WebSocket, message by message, and what Flux shares with it.

https://developers.deepgram.com/docs/tts-websocket

A ``Flush`` ends a turn of ours, whose ``done`` is answered with ``Flushed``. One context takes turn
after turn.
"""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from voice_server.core import wire
from voice_server.core.errors import ProtocolMistake, RequestError
from voice_server.web.vendors.channel import Ours, Translation, json_object

VERSION: Final = "1"
# https://developers.deepgram.com/docs/flux-tts/server-messages lists a few; others bear our code.
_CODES = {"invalid_json": "MESSAGE-0000", "bad_message": "MESSAGE-0000", "idle_timeout": "NET-0000"}


class DeepgramTranslation(Translation):
    """What both sockets share: text, the end of a turn, and the end of the connection."""

    def __init__(
        self, asked: wire.Configure, model: str, number: str, subprotocol: str | None
    ) -> None:
        super().__init__()
        self.defaults = replace(asked, keep_open=True)
        self.subprotocol = subprotocol
        self.model = model
        self.opening = [{"opts": dict(asked.opts)}]
        self._is_open = False  # text came that no Flush has ended
        self._waiting = 0  # turns whose end was not told yet
        # For each cancel that was not answered yet, the turns that it ends; the oldest first.
        self._dooms: deque[int] = deque()
        self._is_closing = False
        self.replies.append(json.dumps(self._greeting(number, model_uuid(model))))

    @abstractmethod
    def _greeting(self, number: str, model_id: str) -> dict[str, Any]: ...

    @abstractmethod
    def _take(self, kind: str, message: dict[str, Any]) -> Sequence[Ours]:
        """A message that one socket knows and the other one does not."""

    @abstractmethod
    def _end(self, done: Ours) -> list[dict[str, Any]]:
        """What a turn's end is told by."""

    @abstractmethod
    def _cancelled(self, cancelled: Ours) -> list[dict[str, Any]]: ...

    def _last(self) -> list[dict[str, Any]]:
        """What is told before the close."""
        return []

    def incoming(self, raw: str) -> Sequence[Ours]:
        message = json_object(raw)
        kind = message.get("type")
        if not isinstance(kind, str):
            raise bad('expected {"type": "Speak", "text": "…"}')
        if self._is_closing:
            if kind == "Close":
                return [{}]
            raise ProtocolMistake(f"{kind[:40]} after Close")
        match kind:
            case "Speak":
                return self._spoken(message)
            case "Close":
                self._is_closing = True
                ended = self._ended() if self._is_open else []
                if self._is_settled:
                    self._close()
                return ended
            case "KeepAlive":
                return [{}]
        return self._take(kind, message)

    def outgoing(self, message: Ours) -> Sequence[str | bytes]:
        match message["type"]:
            case "audio":
                self._hear(message["pcm"])
                return [message["pcm"]]
            case "done":
                told = self._end(message)
            case "cancelled":
                told = self._cancelled(message)
            case "error":
                told = self._failed(message)
            case _:
                return []
        if self._is_closing and self._is_settled and not self.is_over:
            self.is_over = True
            told = [*told, *self._last()]
        return [json.dumps(one) for one in told]

    def _hear(self, pcm: bytes) -> None:
        """Sound goes out."""

    def _failed(self, error: Ours) -> list[dict[str, Any]]:
        code, said = _CODES.get(error["code"], error["code"].upper()), error["msg"]
        is_warning = "segment" in error  # the connection goes on
        if error["code"] == "no_text":
            is_warning, said = True, "there is no text to flush"
        # Flux's clients read the first pair of names, Aura's the second.
        told = {"code": code, "description": said}
        if is_warning:
            return [{"type": "Warning", **told, "warn_code": code, "warn_msg": said}]
        return [{"type": "Error", **told, "err_code": code, "err_msg": said}]

    def _spoken(self, message: dict[str, Any]) -> list[Ours]:
        text = message.get("text")
        if not isinstance(text, str):
            raise bad("Speak › text: expected text")
        if not text:
            return [{}]
        if not self._is_open:
            self._is_open = True
            self._waiting += 1
        return [{"token": text}]

    def _ended(self) -> list[Ours]:
        self._is_open = False
        return [{"done": True}]

    @property
    def _is_settled(self) -> bool:
        """Everything that is answered was answered."""
        return not self._waiting and not self._dooms

    def _doom(self) -> None:
        """Every turn is to be cancelled; text that comes before the answer is of a new one."""
        self._is_open = False
        self._dooms.append(self._waiting - sum(self._dooms))

    def _count_end(self) -> None:
        self._waiting -= 1
        # It may end before its cancel is heard.
        first = next((n for n, doomed in enumerate(self._dooms) if doomed), None)
        if first is not None:
            self._dooms[first] -= 1

    def _count_cancelled(self) -> int:
        """How many turns were cancelled."""
        doomed = self._dooms.popleft()
        self._waiting -= doomed
        return doomed

    def _close(self) -> None:
        self.is_over = True
        self.replies.extend(json.dumps(one) for one in self._last())


class SpeakTranslation(DeepgramTranslation):
    """``/v1/speak``: Speak, Flush, Clear, Close."""

    _sequence = 0

    def _greeting(self, number: str, model_id: str) -> dict[str, Any]:
        named = {"model_name": self.model, "model_version": VERSION, "model_uuid": model_id}
        return {"type": "Metadata", "request_id": number, **named}

    def _take(self, kind: str, message: dict[str, Any]) -> Sequence[Ours]:
        match kind:
            case "Flush":
                if not self._is_open:
                    self._waiting += 1  # it is answered as well
                return self._ended()
            case "Clear":
                self._doom()
                return [{"cancel": True}]
        raise bad(f"type: expected Speak, Flush, Clear or Close, got {kind[:40]!r}")

    def _end(self, done: Ours) -> list[dict[str, Any]]:
        self._count_end()
        return [self._numbered("Flushed")]

    def _cancelled(self, cancelled: Ours) -> list[dict[str, Any]]:
        self._count_cancelled()
        return [self._numbered("Cleared")]

    def _numbered(self, kind: str) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, "sequence_id": self._sequence - 1}


def model_uuid(model: str) -> str:
    """The number under which clients know a model: the same for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, model))


def bad(message: str) -> RequestError:
    """A message that makes no sense."""
    return RequestError(message, code="bad_message")
