"""Telephone platforms that bring a voice of one's own: jambonz over HTTP and WebSocket, Vapi.

https://docs.jambonz.org/guides/features/custom-tts-providers
https://docs.vapi.ai/customization/custom-voices/custom-tts

The platform's configuration holds our address, and in its query what the platform does not send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.audio.formats import Format, sound_format
from voice_server.core import wire
from voice_server.speech.service import SpeechService
from voice_server.web.language import LanguageTag
from voice_server.web.operations import check
from voice_server.web.sound import SpokenTurn, check_text, codec
from voice_server.web.vendors.asking import configuration
from voice_server.web.vendors.channel import Ours, Translation, json_object
from voice_server.web.vendors.operation import (
    SPEECH_ERRORS,
    Body,
    VendorOperation,
    VendorSocket,
    sound,
)

VENDOR: Final = "telephony"
_NO_MODELS: Final = re.compile(r"(?!)")  # a model is a backend by name
_ENCODINGS: Final = {"pcm": "pcm_s16le", "ulaw": "pcm_mulaw", "alaw": "pcm_alaw", "mp3": "mp3"}

Name = Annotated[str, Field(max_length=200)]
Rate = Annotated[int, Field(ge=8_000, le=48_000)]


class VoiceQuery(Body):
    """The query of every address here: who speaks."""

    voice: Name | None = None
    model: Name | None = None
    language: LanguageTag | None = None


class LineQuery(VoiceQuery):
    """That of a socket; ``encoding`` is what the platform plays."""

    sample_rate: Rate = 8_000
    encoding: Literal["pcm", "ulaw", "alaw"] = "pcm"


class FileQuery(VoiceQuery):
    """That of an address that answers with a file."""

    sample_rate: Rate = 24_000
    encoding: Literal["pcm", "ulaw", "alaw", "mp3"] = "mp3"


class JambonzRequest(Body):
    """What jambonz posts."""

    text: str
    voice: Name | None = None
    language: Annotated[str, Field(max_length=64)] | None = None
    type: Literal["text", "ssml"] = "text"


class VoiceRequest(Body):
    """A message of Vapi's; of all it tells of the call, this matters."""

    type: Literal["voice-request"]
    text: str
    sampleRate: Rate = 24_000


class VapiRequest(Body):
    """What Vapi posts."""

    message: VoiceRequest


async def jambonz(request: Request, query: FileQuery, body: JambonzRequest) -> Response:
    """Speak what jambonz posts, as mp3 or in a WAV, which says its rate."""
    is_mp3 = query.encoding == "mp3"
    container = None if is_mp3 else "wav"
    fmt = sound_format(_ENCODINGS[query.encoding], query.sample_rate, container)
    opts = {"ssml": True} if body.type == "ssml" else {}
    asked = query.model_copy(
        update={
            "voice": body.voice or query.voice,
            # A voice knows its language; jambonz sends one with every text.
            "language": None if body.voice or query.voice else body.language or query.language,
        }
    )
    return await _spoken(request, body.text, asked, fmt, opts)


async def vapi(request: Request, query: VoiceQuery, body: VapiRequest) -> Response:
    """Speak what Vapi asks for, as bare samples at its rate."""
    fmt = sound_format("pcm_s16le", body.message.sampleRate)
    headers = {"Content-Type": "audio/raw"}
    return await _spoken(request, body.message.text, query, fmt, {}, headers)


async def _spoken(
    request: Request,
    text: str,
    query: VoiceQuery,
    fmt: Format,
    opts: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> Response:
    service: SpeechService = request.app.state.speech
    check_text(service, text)
    asked = await _configuration(request, query)
    asked = replace(asked, opts={**asked.opts, **opts})
    encoder = await codec(fmt)
    tenant = request.scope["state"].get("tenant", "")
    items = service.speak(text, asked, tenant, door=VENDOR)
    return SpokenTurn(items, encoder, service.limits.send_deadline, headers)


async def _configuration(connection: HTTPConnection, query: VoiceQuery) -> wire.Configure:
    return await configuration(
        connection,
        voice=query.voice,
        model=query.model,
        own_models=_NO_MODELS,
        language=query.language,
    )


class JambonzMessage(Body):
    """What jambonz sends on its socket."""

    type: Literal["stream", "flush", "stop", "keepalive"]
    text: str = ""


class Jambonz(Translation):
    """A call: tokens, ``flush`` at the end of what is said, ``stop`` when the caller interrupts."""

    def __init__(self, defaults: wire.Configure) -> None:
        super().__init__()
        # What comes after a flush is the next turn.
        self.defaults = replace(defaults, keep_open=True)
        self._is_open = False
        self._has_text = False
        about = {"sample_rate": defaults.format.sample_rate, "base64_encoding": False}
        self.replies.append(json.dumps({"type": "connect", "data": about}))

    def incoming(self, raw: str) -> Sequence[Ours]:
        message = check(JambonzMessage, json_object(raw))
        asked: list[Ours] = [] if self._is_open else [{"opts": {}}]
        self._is_open = True
        match message.type:
            case "stream" if self._has_text or message.text.strip():
                self._has_text = True
                asked.append({"token": message.text})
            case "flush" if self._has_text:
                self._has_text = False
                asked.append({"done": True})
            case "stop":
                self._has_text = False
                asked.append({"cancel": True})
            case _:
                asked.append({})
        return asked

    def outgoing(self, message: Ours) -> Sequence[str | bytes]:
        if message["type"] == "audio":
            return [message["pcm"]]
        if message["type"] == "error":
            return [json.dumps({"type": "error", "error": message["msg"]})]
        return []


async def _jambonz(connection: HTTPConnection) -> Translation:
    query = check(LineQuery, dict(connection.query_params))
    asked = await _configuration(connection, query)
    fmt = wire.AudioFormat(_ENCODINGS[query.encoding], query.sample_rate)
    return Jambonz(replace(asked, format=fmt))


def routes() -> list[BaseRoute]:
    path = "/telephony/jambonz"
    return [
        VendorOperation(
            *(VENDOR, "POST", path, jambonz, sound()),
            query=FileQuery,
            body=JambonzRequest,
            errors=SPEECH_ERRORS,
        ),
        VendorSocket(VENDOR, path, _jambonz),
        VendorOperation(
            *(VENDOR, "POST", "/telephony/vapi", vapi, sound("audio/raw")),
            query=VoiceQuery,
            body=VapiRequest,
            errors=SPEECH_ERRORS,
        ),
    ]
