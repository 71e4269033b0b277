"""Cartesia's speech: ``POST /tts/bytes`` and ``/tts/sse``; its WebSocket and voices are beside it.

https://docs.cartesia.ai/api-reference/tts
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.audio.encode import Encoder
from voice_server.audio.formats import sound_format
from voice_server.core.delivery import Frame
from voice_server.speech.service import SpeechService
from voice_server.web.operations import Content
from voice_server.web.sound import Items, SpokenTurn, check_text, codec
from voice_server.web.vendors.asking import configuration
from voice_server.web.vendors.cartesia_messages import MODELS, Asked, word_timestamps
from voice_server.web.vendors.cartesia_socket import CartesiaTranslation
from voice_server.web.vendors.errors import request_id
from voice_server.web.vendors.operation import SPEECH_ERRORS, VendorOperation, VendorSocket, sound

VENDOR: Final = "cartesia"


class CartesiaSpeech(Asked):
    """The body of a request."""

    transcript: str
    context_id: str | None = None


class Status(BaseModel):
    """Somebody is there."""

    ok: bool = True
    version: str = "1"


class _Events(SpokenTurn):
    """The sound of a turn as ``chunk`` and ``timestamps`` events, and ``done``."""

    def __init__(
        self,
        items: Items,
        encoder: Encoder,
        deadline: float,
        context_id: str | None,
    ) -> None:
        super().__init__(items, encoder, deadline, {"Content-Type": "text/event-stream"})
        self._context = {} if context_id is None else {"context_id": context_id}
        self._began_at = time.monotonic()
        self._words = b""  # of sound that goes ahead of them, or comes: an answer begins with sound

    def _render(self, item: dict[str, Any] | Frame) -> bytes:
        if isinstance(item, Frame):
            words, self._words = self._words, b""
            return words + self._chunk(super()._render(item))
        if item["type"] == "words" and (told := word_timestamps(item["words"])):
            fields = {"done": False, "word_timestamps": told}
            self._words += self._event("timestamps", 206, fields)
        return b""

    def _finish(self) -> bytes:
        rest = self._words + self._chunk(super()._finish())
        return rest + self._event("done", 200, {"done": True})

    def _chunk(self, sound: bytes) -> bytes:
        if not sound:
            return b""
        data = base64.b64encode(sound).decode()
        took = round((time.monotonic() - self._began_at) * 1000, 3)
        return self._event("chunk", 206, {"done": False, "data": data, "step_time": took})

    def _event(self, kind: str, status: int, fields: Mapping[str, Any]) -> bytes:
        message = {"type": kind, "status_code": status, **fields, **self._context}
        return f"event: {kind}\ndata: {json.dumps(message)}\n\n".encode()


async def _items(request: Request, body: CartesiaSpeech) -> Items:
    service: SpeechService = request.app.state.speech
    check_text(service, body.transcript, "transcript")
    asked = await configuration(
        request,
        voice=body.voice.id,
        model=body.model_id,
        own_models=MODELS,
        speed=body.rate,
        language=body.language,
        timestamps=bool(body.add_timestamps),
    )
    tenant = request.scope["state"].get("tenant", "")
    return service.speak(body.transcript, asked, tenant, door=VENDOR)


async def speak(request: Request, body: CartesiaSpeech) -> Response:
    """Speak a text."""
    deadline = request.app.state.speech.limits.send_deadline
    encoder = await codec(body.output_format.resolved())
    return SpokenTurn(await _items(request, body), encoder, deadline)


async def speak_events(request: Request, body: CartesiaSpeech) -> Response:
    """Speak a text, as server-sent events."""
    deadline = request.app.state.speech.limits.send_deadline
    fmt = body.output_format.samples()
    encoder = await codec(sound_format(fmt.encoding, fmt.sample_rate, "raw"))
    return _Events(await _items(request, body), encoder, deadline, body.context_id)


async def status(request: Request) -> Status:
    """An answer for clients that ask whether somebody is there."""
    return Status()


async def _socket(connection: HTTPConnection) -> CartesiaTranslation:
    service: SpeechService = connection.app.state.speech
    for backend in service.pools:
        await service.known(backend)
    asked = connection.query_params.get("cartesia_version", "")
    version = connection.headers.get("cartesia-version", asked)
    return CartesiaTranslation(service, request_id(connection.scope), version)


def routes() -> list[BaseRoute]:
    def max_body(request: Request) -> int:
        # A character takes twelve bytes at most, as an escaped pair.
        service: SpeechService = request.app.state.speech
        return 12 * service.limits.max_turn_chars + 65_536

    events = {200: Content(("text/event-stream",), "Events: chunk, timestamps, done")}
    return [
        *(
            VendorOperation(
                *(VENDOR, "POST", path, handler, answers),
                body=CartesiaSpeech,
                errors=SPEECH_ERRORS,
                max_body=max_body,
            )
            for path, handler, answers in (
                ("/tts/bytes", speak, sound()),
                ("/tts/sse", speak_events, events),
            )
        ),
        VendorOperation(VENDOR, "GET", "/", status, {200: Status}),
        VendorSocket(VENDOR, "/tts/websocket", _socket),
    ]
