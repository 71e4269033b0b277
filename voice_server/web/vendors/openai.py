"""OpenAI's speech: ``POST /v1/audio/speech`` and the lists beside it.

https://platform.openai.com/docs/api-reference/audio
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.audio.formats import SOURCE_RATE, Format, sound_format
from voice_server.control.plane import ControlPlane
from voice_server.core.delivery import Frame
from voice_server.core.errors import RequestError
from voice_server.speech.service import SpeechService
from voice_server.web.operations import Upload
from voice_server.web.sound import Items, SpokenTurn, check_text, codec
from voice_server.web.uploads import MAX_UPLOAD, read_upload
from voice_server.web.vendors.asking import AnyVoice, NamedVoice, configuration
from voice_server.web.vendors.operation import (
    CLONING_ERRORS,
    SPEECH_ERRORS,
    Body,
    VendorOperation,
    sound,
)
from voice_server.web.voices import every_voice

VOICES: Final = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
MODELS: Final = re.compile(r"tts-1(-hd)?(-\d+)?|gpt-[\w.-]*(tts|audio)[\w.-]*")
_LISTED: Final = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
# The response format, ours, and the Content-Type that OpenAI sends.
_FORMATS: Final[dict[str, tuple[str, str]]] = {
    "mp3": ("mp3", "audio/mpeg"),
    "opus": ("opus", "audio/opus"),
    "aac": ("aac", "audio/aac"),
    "flac": ("flac", "audio/flac"),
    "wav": ("wav", "audio/wav"),
    "pcm": ("pcm_s16le", "audio/pcm"),
}
_TOKEN_SAMPLES: Final = SOURCE_RATE // 20  # an output token is 50 ms


class OpenAISpeech(Body):
    """The body of ``POST /v1/audio/speech``."""

    input: str
    model: str = Field(default="tts-1", max_length=200)
    voice: AnyVoice = NamedVoice(id="")
    instructions: str | None = Field(default=None, max_length=4_096)
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: float | None = Field(default=None, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] | None = None


class OpenAIVoiceForm(Body):
    """The form of ``POST /v1/audio/voices``."""

    name: str
    audio_sample: Upload
    consent: str = Field(description="The id of a consent recording, or what was agreed to.")


class OpenAIModel(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "voice-server"


class OpenAIModels(BaseModel):
    """The models."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class Named(BaseModel):
    """A model or a voice, as Open WebUI reads it."""

    id: str
    name: str


class WebUIModels(BaseModel):
    """The models that speak."""

    models: list[Named]


class WebUIVoices(BaseModel):
    """Every voice."""

    voices: list[Named]


class CreatedVoice(BaseModel):
    """The voice that was made."""

    object: Literal["audio.voice"] = "audio.voice"
    id: str
    name: str
    created_at: str


class Here(BaseModel):
    """Somebody is there."""

    object: str = "voice-server"


class _Events(SpokenTurn):
    """The sound of a turn as ``speech.audio.delta`` events, and ``speech.audio.done``."""

    _samples = 0
    characters = 0

    def _render(self, item: dict[str, Any] | Frame) -> bytes:
        if isinstance(item, Frame):
            self._samples += len(item.pcm) // 2
        return _delta(super()._render(item))

    def _finish(self) -> bytes:
        output = -(-self._samples // _TOKEN_SAMPLES)
        usage = {"input_tokens": self.characters, "output_tokens": output}
        usage["total_tokens"] = self.characters + output
        return _delta(super()._finish()) + _event({"type": "speech.audio.done", "usage": usage})


def _delta(sound: bytes) -> bytes:
    if not sound:
        return b""
    audio = base64.b64encode(sound).decode()
    return _event({"type": "speech.audio.delta", "audio": audio})


def _event(message: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


async def speak(request: Request, body: OpenAISpeech) -> Response:
    """Speak a text."""
    service: SpeechService = request.app.state.speech
    check_text(service, body.input, "input")
    asked = await configuration(
        request,
        voice=body.voice.id,
        model=body.model,
        own_models=MODELS,
        stand_ins=VOICES,
        speed=body.speed,
        instructions=body.instructions,
    )
    encoding, content_type = _FORMATS[body.response_format or "mp3"]
    encoder = await codec(_format(encoding))
    tenant = request.scope["state"].get("tenant", "")
    items: Items = service.speak(body.input, asked, tenant, door="openai")
    deadline = service.limits.send_deadline
    if body.stream_format == "sse":
        events = _Events(items, encoder, deadline, {"Content-Type": "text/event-stream"})
        events.characters = len(body.input)
        return events
    return SpokenTurn(items, encoder, deadline, {"Content-Type": content_type})


def _format(encoding: str) -> Format:
    return sound_format(encoding, SOURCE_RATE)


async def models(request: Request) -> OpenAIModels:
    """OpenAI's model names, which mean the default backend, and the running backends."""
    names = [*_LISTED, *request.app.state.speech.pools]
    return OpenAIModels(data=[OpenAIModel(id=name) for name in names])


async def model(request: Request) -> OpenAIModel:
    """One model."""
    name: str = request.path_params["model"]
    if not MODELS.fullmatch(name):
        request.app.state.speech.pool(name)
    return OpenAIModel(id=name)


async def audio_models(request: Request) -> WebUIModels:
    """The models that speak, as Open WebUI asks for them."""
    names = [*_LISTED, *request.app.state.speech.pools]
    return WebUIModels(models=[Named(id=name, name=name) for name in names])


async def voices(request: Request) -> WebUIVoices:
    """Every voice, and OpenAI's names, as Open WebUI asks for them."""
    state = request.app.state
    found = [voice for voice, _ in every_voice(state.speech, state.catalogue)]
    known = {voice.id for voice in found}
    listed = [Named(id=voice.id, name=voice.display_name or voice.name) for voice in found]
    listed += [Named(id=name, name=name.capitalize()) for name in VOICES if name not in known]
    return WebUIVoices(voices=listed)


async def clone(request: Request, form: OpenAIVoiceForm) -> CreatedVoice:
    """Make a voice of a recording, with the consent of its speaker."""
    if not form.consent.strip():
        raise RequestError("consent › say which consent of the speaker there is")
    plane: ControlPlane = request.app.state.control
    made = await plane.cloning.clone(
        await read_upload(form.audio_sample),
        name=form.name,
        source="openai",
        consent={"statement": form.consent},
    )
    voice = made.voice
    return CreatedVoice(id=voice.id, name=voice.name, created_at=voice.created_at)


async def here(request: Request) -> Here:
    """An answer for clients that open a connection before they need it."""
    return Here()


def routes() -> list[BaseRoute]:
    def max_body(request: Request) -> int:
        # A character takes twelve bytes at most, as an escaped pair.
        service: SpeechService = request.app.state.speech
        return 12 * service.limits.max_turn_chars + 65_536

    def operation(*said: Any, **more: Any) -> BaseRoute:
        return VendorOperation("openai", *said, **more)

    kinds = (*(kind for _, kind in _FORMATS.values()), "text/event-stream")
    path, spoken = "/v1/audio/voices", sound(*dict.fromkeys(kinds))
    return [
        operation(
            *("POST", "/v1/audio/speech", speak, spoken),
            body=OpenAISpeech,
            errors=SPEECH_ERRORS,
            max_body=max_body,
        ),
        operation("GET", "/v1/models", models, {200: OpenAIModels}),
        operation("GET", "/v1/models/{model}", model, {200: OpenAIModel}, errors=[404]),
        operation("GET", "/v1/audio/models", audio_models, {200: WebUIModels}, is_open=True),
        operation("GET", path, voices, {200: WebUIVoices}, is_open=True),
        operation(
            *("POST", path, clone, {200: CreatedVoice}),
            form=OpenAIVoiceForm,
            errors=CLONING_ERRORS,
            max_body=MAX_UPLOAD,
        ),
        operation("GET", "/v1", here, {200: Here}),
        operation("GET", "/v1/", here, {200: Here}),
    ]
