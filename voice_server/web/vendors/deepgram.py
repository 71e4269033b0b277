"""Deepgram's speech: ``POST /v1/speak`` and ``/v2/speak``; their WebSockets are beside it.

https://developers.deepgram.com/reference/text-to-speech
"""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import quote

from pydantic import Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.audio.formats import Format, sound_format
from voice_server.core import wire
from voice_server.core.errors import RequestError, UnsupportedFormat
from voice_server.speech.service import SpeechService
from voice_server.web.operations import check
from voice_server.web.sound import SpokenTurn, check_text, codec
from voice_server.web.vendors.asking import configuration
from voice_server.web.vendors.channel import DEFAULTS
from voice_server.web.vendors.deepgram_flux import FluxTranslation
from voice_server.web.vendors.deepgram_speak import SpeakTranslation, model_uuid
from voice_server.web.vendors.errors import request_id
from voice_server.web.vendors.operation import (
    SPEECH_ERRORS,
    Body,
    VendorOperation,
    VendorSocket,
    sound,
)

VENDOR: Final = "deepgram"
MODELS: Final = re.compile(r"(aura|flux)(-[\w.]+)+")
# Ours, the sample rate and the container that Deepgram takes where none is named.
_ENCODINGS: Final = {
    "linear16": ("pcm_s16le", 24_000, "wav"),
    "mulaw": ("pcm_mulaw", 8_000, "wav"),
    "alaw": ("pcm_alaw", 8_000, "wav"),
    "mp3": ("mp3", 22_050, None),
    "opus": ("opus", 48_000, "ogg"),
    "flac": ("flac", 48_000, None),
    "aac": ("aac", 22_050, None),
}
_CONTAINERS: Final = {"none": "raw", "wav": "wav", "ogg": "ogg"}


class SpeakQuery(Body):
    """The query of both transports. ``model``: a voice of ours, a backend, or one of Deepgram's."""

    model: str = Field(default="aura-2-thalia-en", max_length=200)
    encoding: str | None = Field(default=None, max_length=40)
    container: Literal["none", "wav", "ogg"] | None = None
    sample_rate: int | None = None
    bit_rate: int | None = None
    speed: float | None = Field(default=None, ge=0.5, le=2)
    callback: str | None = None

    def file_format(self) -> Format:
        """What a request is answered with. Raises UnsupportedFormat."""
        encoding, rate, container = _encoding(self.encoding or "mp3")
        if self.container is not None and container is not None:
            container = _CONTAINERS[self.container]
        return sound_format(encoding, self.sample_rate or rate, container, self.bit_rate)

    def stream_format(self) -> wire.AudioFormat:
        """What goes over a socket: bare samples. Raises UnsupportedFormat."""
        encoding, rate, _ = _encoding(self.encoding or "linear16")
        if encoding not in wire.PCM_ENCODINGS:
            raise UnsupportedFormat("encoding › sockets take linear16, mulaw and alaw")
        return wire.parse_format({"encoding": encoding, "sample_rate": self.sample_rate or rate})


class DeepgramText(Body):
    """The body of a request."""

    text: str


def _encoding(name: str) -> tuple[str, int, str | None]:
    if name not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise UnsupportedFormat(f"encoding › expected one of {known}, got {name!r:.50}")
    return _ENCODINGS[name]


async def _asked(
    connection: HTTPConnection, query: SpeakQuery, audio_format: wire.AudioFormat = DEFAULTS.format
) -> wire.Configure:
    """Raises UnknownVoice, UnknownOption, NotReady."""
    service: SpeechService = connection.app.state.speech
    model = query.model
    asked = await configuration(
        connection,
        voice=None if model in service.pools else model,
        model=model if model in service.pools else None,
        own_models=MODELS,
        stand_ins=(model,) if MODELS.fullmatch(model) else (),
        speed=query.speed,
        audio_format=audio_format,
    )
    await service.route(asked)
    return asked


async def speak(request: Request, query: SpeakQuery, body: DeepgramText) -> Response:
    """Speak a text."""
    service: SpeechService = request.app.state.speech
    if query.callback is not None:
        raise RequestError("callback › this server answers with the sound; leave it out")
    check_text(service, body.text)
    encoder = await codec(query.file_format())
    tenant = request.scope["state"].get("tenant", "")
    items = service.speak(body.text, await _asked(request, query), tenant, door=VENDOR)
    headers = {
        "dg-model-name": quote(query.model),
        "dg-model-uuid": model_uuid(query.model),
        "dg-char-count": str(len(body.text)),
    }
    return SpokenTurn(items, encoder, service.limits.send_deadline, headers)


async def _speak_socket(connection: HTTPConnection) -> SpeakTranslation:
    query = check(SpeakQuery, dict(connection.query_params))
    asked = await _asked(connection, query, query.stream_format())
    return SpeakTranslation(asked, query.model, request_id(connection.scope), _offered(connection))


async def _flux_socket(connection: HTTPConnection) -> FluxTranslation:
    query = check(SpeakQuery, dict(connection.query_params))
    asked = await _asked(connection, query, query.stream_format())
    info = await connection.app.state.speech.known(asked.backend)
    translation = FluxTranslation(
        asked, query.model, request_id(connection.scope), _offered(connection)
    )
    translation.has_speed = "speed" in info.options
    return translation


def _offered(connection: HTTPConnection) -> str | None:
    """The subprotocol to agree on: a browser passes its key as the second one."""
    first = connection.headers.get("sec-websocket-protocol", "").partition(",")[0].strip()
    return first if first.lower() in ("token", "bearer") else None


def routes() -> list[BaseRoute]:
    def max_body(request: Request) -> int:
        # A character takes twelve bytes at most, as an escaped pair.
        service: SpeechService = request.app.state.speech
        return 12 * service.limits.max_turn_chars + 65_536

    return [
        *(
            VendorOperation(
                *(VENDOR, "POST", path, speak, sound()),
                query=SpeakQuery,
                body=DeepgramText,
                errors=SPEECH_ERRORS,
                max_body=max_body,
            )
            for path in ("/v1/speak", "/v2/speak")
        ),
        VendorSocket(VENDOR, "/v1/speak", _speak_socket),
        VendorSocket(VENDOR, "/v2/speak", _flux_socket),
    ]
