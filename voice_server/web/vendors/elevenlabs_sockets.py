"""ElevenLabs' WebSockets: ``stream-input``, one turn; ``multi-stream-input``, a turn per context.

https://elevenlabs.io/docs/api-reference/text-to-speech/v-1-text-to-speech-voice-id-stream-input
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from voice_server.core import wire
from voice_server.core.errors import ProtocolMistake, RequestError
from voice_server.web.language import LanguageTag
from voice_server.web.operations import check
from voice_server.web.vendors.alignment import Alignment, Character
from voice_server.web.vendors.channel import Ours, Translation, json_object
from voice_server.web.vendors.elevenlabs import (
    ElevenLabsSpeech,
    SoundQuery,
    VoiceSettings,
    asked_for,
    output_format,
)
from voice_server.web.vendors.operation import Body, VendorSocket

_UNNAMED: Final = "default"


class SocketQuery(SoundQuery):
    """The query of a WebSocket."""

    model_id: str | None = Field(default=None, max_length=200)
    language_code: LanguageTag | None = None
    auto_mode: bool = False
    sync_alignment: bool = False


class Message(Body):
    """What a client sends, on either socket."""

    text: str | None = None
    voice_settings: VoiceSettings | None = None
    flush: bool | None = None
    context_id: Annotated[str, Field(max_length=200)] | None = None
    close_context: bool | None = None
    close_socket: bool | None = None

    @property
    def speed(self) -> float:
        """How fast, where 1 is as always."""
        return (self.voice_settings and self.voice_settings.speed) or 1.0


@dataclass(slots=True)
class _Context:
    """One turn, and what is told of its words with the sound that comes next."""

    speed: float
    has_text: bool = False
    is_flushed: bool = False  # by the client's own word, since its last text
    is_closed: bool = False
    is_cancelled: bool = False
    alignment: Alignment = field(default_factory=Alignment)
    characters: list[Character] = field(default_factory=list)
    told: int = 0  # milliseconds at which the last alignment ended

    def check(self, message: Message) -> None:
        """Raises ProtocolMistake where it asks for another voice than the first message did."""
        if message.voice_settings is not None and message.speed != self.speed:
            raise ProtocolMistake(
                "voice_settings › the first message decides; later ones repeat it or have none"
            )


class StreamInput(Translation):
    """One turn: text, text, …, and an empty text that ends it."""

    def __init__(self, defaults: wire.Configure, query: SocketQuery) -> None:
        super().__init__()
        self.defaults = defaults
        self._query = query
        self._is_open = False
        self._contexts: dict[str, _Context] = {}

    def incoming(self, raw: str) -> Sequence[Ours]:
        message = check(Message, json_object(raw))
        asked = [] if self._is_open else [{"opts": self._options(message.speed)}]
        self._is_open = True
        turn = self._contexts.setdefault("", _Context(message.speed))
        turn.check(message)
        if turn.is_closed:
            raise ProtocolMistake("text › the empty text ended this socket; open another")
        if message.text == "":
            return [*asked, *self._end(turn)]
        return [*asked, *self._text(turn, message)]

    def _end(self, turn: _Context) -> Sequence[Ours]:
        turn.is_closed = True
        if turn.has_text:
            return [{"done": True}]
        self.replies.append(_final(None))
        self.is_over = True
        return []

    def _options(self, speed: float) -> dict[str, Any]:
        return {**self.defaults.opts, **({"speed": speed} if speed != 1.0 else {})}

    def _text(self, context: _Context, message: Message) -> Sequence[Ours]:
        """The text of a message: a first one that is blank opens, and says nothing."""
        text = message.text or ""
        asked: Ours = {}
        if text and (context.has_text or text.strip()):
            context.has_text, context.is_flushed = True, False
            asked["token"] = text
        context.is_flushed |= bool(message.flush)
        if context.has_text and (message.flush or (self._query.auto_mode and text.strip())):
            asked["flush"] = True
        return [asked]

    def outgoing(self, message: Ours) -> Sequence[str | bytes]:
        name = message.get("context")
        context = self._contexts.get(name or "")
        match message["type"]:
            case "audio" if context:
                return [self._sound(name, context, message["pcm"])]
            case "words" if context:
                context.characters += context.alignment.spread(message)
            case "cancelled":
                return self._over(name)
            case "done":
                return [*self._rest(name, context), *self._over(name)]
            case "error":
                return [_error(name, message)]
        return []

    def closing(self, code: int, reason: str) -> tuple[int, str]:
        # Clients show the code of a close as an error's, and know few of them.
        return (code, reason) if code in (1000, 1011) else (1008, reason)

    def _over(self, name: str | None) -> Sequence[str]:
        return [_final(name)]

    def _rest(self, name: str | None, context: _Context | None) -> Sequence[str]:
        """Words behind the last sound."""
        return [self._sound(name, context, b"")] if context and context.characters else []

    def _sound(self, name: str | None, context: _Context, sound: bytes) -> str:
        characters, context.characters = context.characters, []
        # Times restart with each message, for a client adds them up; LiveKit's, which does not,
        # asks for sync_alignment.
        base = 0 if self._query.sync_alignment else context.told
        context.told = context.alignment.end
        alignment = None
        if characters:
            alignment = {
                "chars": [each.char for each in characters],
                "charStartTimesMs": [each.start - base for each in characters],
                "charDurationsMs": [each.end - each.start for each in characters],
            }
        said: dict[str, Any] = {"audio": base64.b64encode(sound).decode()}
        said |= {"isFinal": None, "alignment": alignment, "normalizedAlignment": alignment}
        return _said(name, said)


class MultiStreamInput(StreamInput):
    """A turn per context. An empty text is a sign of life; ``close_context`` ends one.

    text, flush ─▶ close_context ─▶ what was flushed is spoken ─▶ isFinal
    text ─▶ close_context, or a second one ─▶ an interruption: isFinal at once
    """

    def __init__(
        self, defaults: wire.Configure, query: SocketQuery, max_contexts: int = 16
    ) -> None:
        # The socket's own context waits for all others: the client says when it is over.
        super().__init__(replace(defaults, keep_open=True), query)
        self._max_contexts = max_contexts - 1
        self._is_leaving = False

    def incoming(self, raw: str) -> Sequence[Ours]:
        message = check(Message, json_object(raw))
        asked: list[Ours] = [] if self._is_open else [{"opts": {}}]
        self._is_open = True
        name = message.context_id or _UNNAMED
        context = self._contexts.get(name)
        if message.close_socket:
            self._is_leaving = True
            for other, open_context in list(self._contexts.items()):
                asked += self._finish(other, open_context)
            self.is_over = not self._contexts
        elif message.close_context:
            asked += self._close(name, context)
        elif context is None and message.text:
            asked += self._speak(name, self._open(name, message), message)
        elif context is not None:
            context.check(message)
            if context.is_closed:
                raise ProtocolMistake(f"context_id › {name[:80]!r} was closed; open another")
            asked += self._speak(name, context, message)
        else:
            asked.append({})
        return asked

    def _open(self, name: str, message: Message) -> _Context:
        if len(self._contexts) >= self._max_contexts:
            raise RequestError(
                f"context_id › {self._max_contexts} contexts are open on this socket; close one of "
                "them first, or open another socket",
                code="too_many_contexts",
            )
        context = self._contexts[name] = _Context(message.speed)
        return context

    def _speak(self, name: str, context: _Context, message: Message) -> Sequence[Ours]:
        """The first text configures: a context that is closed without any leaves nothing behind."""
        was_silent = not context.has_text
        asked = [*self._text(context, message)]
        if was_silent and context.has_text:
            asked.insert(0, {"keep_open": False, "opts": self._options(context.speed)})
        return [{**each, "context": name} for each in asked]

    def _close(self, name: str, context: _Context | None) -> Sequence[Ours]:
        """Clients close a context at its end, and when its listener interrupts: once more then."""
        if context is None or context.is_cancelled or not context.has_text:
            return self._finish(name, context)
        if context.is_flushed and not context.is_closed:
            return self._finish(name, context)
        context.is_closed = context.is_cancelled = True
        return [{"context": name, "cancel": True}]

    def _finish(self, name: str, context: _Context | None) -> Sequence[Ours]:
        """Speak what is there, and no more."""
        if context is not None and context.is_closed:
            return []  # its end is on its way
        if context is not None and context.has_text:
            context.is_closed = True
            return [{"context": name, "done": True}]
        # Nothing is to be said, or it was said before.
        self._contexts.pop(name, None)
        self.replies.append(_final(name))
        return []

    def _over(self, name: str | None) -> Sequence[str]:
        self._contexts.pop(name or "", None)
        self.is_over = self._is_leaving and not self._contexts
        return [_final(name)]


def _said(name: str | None, message: dict[str, Any]) -> str:
    return json.dumps(message if name is None else {**message, "contextId": name})


def _final(name: str | None) -> str:
    return _said(name, {"isFinal": True, "audio": None})


def _error(name: str | None, message: Ours) -> str:
    return _said(name, {"message": message["msg"], "error": message["code"], "code": 1008})


async def _asked(connection: HTTPConnection) -> tuple[wire.Configure, SocketQuery]:
    query = check(SocketQuery, dict(connection.query_params))
    fmt = output_format(query.output_format)
    body = ElevenLabsSpeech(text="", model_id=query.model_id, language_code=query.language_code)
    asked = await asked_for(connection, body, timestamps=True)
    audio = wire.AudioFormat(fmt.encoding, fmt.sample_rate)
    return replace(asked, format=audio), query


def routes() -> list[BaseRoute]:
    async def stream(connection: HTTPConnection) -> Translation:
        return StreamInput(*await _asked(connection))

    async def multi_stream(connection: HTTPConnection) -> Translation:
        limits = connection.app.state.speech.limits
        return MultiStreamInput(*await _asked(connection), limits.max_contexts)

    path = "/v1/text-to-speech/{voice_id}"
    return [
        VendorSocket("elevenlabs", f"{path}/stream-input", stream),
        VendorSocket("elevenlabs", f"{path}/multi-stream-input", multi_stream),
    ]
