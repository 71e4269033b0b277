"""ElevenLabs' text to speech over HTTP.

https://elevenlabs.io/docs/api-reference
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.audio.encode import Encoder
from voice_server.audio.formats import Format, sound_format
from voice_server.core import wire
from voice_server.core.delivery import Frame
from voice_server.core.errors import UnsupportedFormat
from voice_server.speech.service import SpeechService
from voice_server.web.errors import error_of
from voice_server.web.language import LanguageTag
from voice_server.web.operations import Content
from voice_server.web.sound import Items, SpokenTurn, check_text, codec
from voice_server.web.vendors.alignment import Alignment, Character
from voice_server.web.vendors.asking import configuration
from voice_server.web.vendors.operation import SPEECH_ERRORS, Body, VendorOperation, sound

MODELS: Final = re.compile(r"eleven_\w+")
DEFAULT_FORMAT: Final = "mp3_44100_128"
_ENCODINGS: Final = {
    "mp3": "mp3",
    "pcm": "pcm_s16le",
    "ulaw": "pcm_mulaw",
    "alaw": "pcm_alaw",
    "opus": "opus",
    "wav": "wav",
}


class VoiceSettings(Body):
    """How to say it; what only ElevenLabs' models know is not looked at."""

    speed: float | None = Field(default=None, ge=0.25, le=4)


class ElevenLabsSpeech(Body):
    """The body of every ``POST /v1/text-to-speech/…``."""

    text: str
    model_id: str | None = Field(default=None, max_length=200)
    language_code: LanguageTag | None = None
    voice_settings: VoiceSettings | None = None


class SoundQuery(Body):
    """Its query."""

    output_format: str = DEFAULT_FORMAT


class Times(BaseModel):
    """When each character is heard."""

    characters: list[str]
    character_start_times_seconds: list[float]
    character_end_times_seconds: list[float]


class TimedSound(BaseModel):
    """Sound, and when its characters are heard; null where the backend does not know."""

    audio_base64: str
    alignment: Times | None
    normalized_alignment: Times | None


def output_format(name: str) -> Format:
    """``mp3_44100_128`` as a format of ours. Raises UnsupportedFormat."""
    kind, *numbers = name.split("_")
    if kind not in _ENCODINGS or not 1 <= len(numbers) <= 2 or not all(map(str.isdigit, numbers)):
        raise UnsupportedFormat(
            f"output_format › expected such as mp3_44100_128, pcm_24000, ulaw_8000 or "
            f"opus_48000_64 ({', '.join(_ENCODINGS)}), got {name[:60]!r}"
        )
    rate, *kbps = (int(number[:9]) for number in numbers)
    return sound_format(_ENCODINGS[kind], rate, bitrate=kbps[0] * 1000 if kbps else None)


async def asked_for(
    connection: HTTPConnection, body: ElevenLabsSpeech, *, timestamps: bool = False
) -> wire.Configure:
    """The configuration that ``body`` and the voice in the path ask for."""
    settings = body.voice_settings
    return await configuration(
        connection,
        voice=connection.path_params["voice_id"],
        model=body.model_id,
        own_models=MODELS,
        speed=settings.speed if settings else None,
        language=body.language_code,
        timestamps=timestamps,
    )


async def _items(request: Request, body: ElevenLabsSpeech, *, timestamps: bool = False) -> Items:
    service: SpeechService = request.app.state.speech
    check_text(service, body.text)
    asked = await asked_for(request, body, timestamps=timestamps)
    tenant = request.scope["state"].get("tenant", "")
    return service.speak(body.text, asked, tenant, door="elevenlabs")


async def speak(request: Request, query: SoundQuery, body: ElevenLabsSpeech) -> Response:
    """Speak a text; the answer grows while it is made."""
    encoder = await codec(output_format(query.output_format))
    items = await _items(request, body)
    return SpokenTurn(items, encoder, request.app.state.speech.limits.send_deadline)


class _Lines(SpokenTurn):
    """Sound and alignment, one JSON object a line."""

    def __init__(self, items: Items, encoder: Encoder, deadline: float) -> None:
        super().__init__(items, encoder, deadline, {"Content-Type": "application/json"})
        self._alignment = Alignment()
        self._characters: list[Character] = []

    def _render(self, item: dict[str, Any] | Frame) -> bytes:
        if isinstance(item, dict):
            if item["type"] == "words":
                self._characters += self._alignment.spread(item)
            return b""
        sound = super()._render(item)
        return self._line(sound) if sound else b""

    def _finish(self) -> bytes:
        return self._line(super()._finish())

    def _line(self, sound: bytes) -> bytes:
        characters, self._characters = self._characters, []
        return _timed(sound, characters).model_dump_json().encode() + b"\n"


def _timed(sound: bytes, characters: Sequence[Character]) -> TimedSound:
    alignment = None
    if characters:
        alignment = Times(
            characters=[each.char for each in characters],
            character_start_times_seconds=[each.start / 1000 for each in characters],
            character_end_times_seconds=[each.end / 1000 for each in characters],
        )
    audio = base64.b64encode(sound).decode()
    return TimedSound(audio_base64=audio, alignment=alignment, normalized_alignment=alignment)


async def stream_with_timestamps(
    request: Request, query: SoundQuery, body: ElevenLabsSpeech
) -> Response:
    """Speak a text; each line of the answer tells when its characters are heard."""
    encoder = await codec(output_format(query.output_format))
    items = await _items(request, body, timestamps=True)
    return _Lines(items, encoder, request.app.state.speech.limits.send_deadline)


async def speak_with_timestamps(
    request: Request, query: SoundQuery, body: ElevenLabsSpeech
) -> TimedSound:
    """Speak a text, and tell when each of its characters is heard."""
    encoder = await codec(output_format(query.output_format))
    alignment, characters, sound = Alignment(), list[Character](), bytearray()
    async with aclosing(await _items(request, body, timestamps=True)) as items:
        async for item in items:
            if isinstance(item, Frame):
                sound += encoder.encode(item.pcm)
            elif item["type"] == "error":
                raise error_of(item)
            elif item["type"] == "words":
                characters += alignment.spread(item)
    sound += encoder.finish()
    return _timed(bytes(sound), characters)


def routes() -> list[BaseRoute]:
    def max_body(request: Request) -> int:
        # A character takes twelve bytes at most, as an escaped pair.
        service: SpeechService = request.app.state.speech
        return 12 * service.limits.max_turn_chars + 65_536

    def operation(path: str, *said: Any) -> BaseRoute:
        return VendorOperation(
            *("elevenlabs", "POST", f"/v1/text-to-speech/{{voice_id}}{path}", *said),
            query=SoundQuery,
            body=ElevenLabsSpeech,
            errors=SPEECH_ERRORS,
            max_body=max_body,
        )

    lines = {200: Content(("application/json",), "Sound and its times, one object a line")}
    return [
        operation("", speak, sound()),
        operation("/stream", speak, sound()),
        operation("/with-timestamps", speak_with_timestamps, {200: TimedSound}),
        operation("/stream/with-timestamps", stream_with_timestamps, lines),
    ]
