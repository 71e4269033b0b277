"""``POST /tts`` and ``WS /stream``: a whole text in, its sound out while it is made."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send

from voice_server.audio.formats import ENCODINGS, SOURCE_RATE, Format, sound_format
from voice_server.core import wire
from voice_server.core.errors import RequestError, VoiceServerError
from voice_server.speech.channel import Channel
from voice_server.speech.service import SpeechService
from voice_server.web.language import LanguageTag
from voice_server.web.operations import Body, Content, Operation, check
from voice_server.web.sound import SpokenTurn, check_text, codec
from voice_server.web.stream_tokens import accept, query_of

_NAMES = {"pcm": "pcm_s16le", "mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}
# What a telephone expects, and all that audio/basic means (RFC 2046).
_DEFAULT_RATES = {"pcm_mulaw": 8_000, "pcm_alaw": 8_000}
_KNOWN: dict[str, Any] = {"enum": sorted({*ENCODINGS, *_NAMES})}
_QUIET = frozenset({"ready", "generating", "segment_done"})


class SoundFormat(Body):
    """What the sound is coded as; always mono."""

    encoding: Annotated[str, Field(json_schema_extra=_KNOWN)] = "wav"
    sample_rate: int | None = Field(
        default=None, description="8000 to 48000 hertz; by default 24000, for G.711 8000."
    )
    container: str | None = Field(
        default=None, description="`ogg` or `webm` for opus, `wav` or `raw` for samples."
    )
    bitrate: int | None = Field(default=None, description="Bits per second of opus, mp3, aac.")

    def resolved(self) -> Format:
        """Raises UnsupportedFormat, naming what is possible."""
        encoding = _NAMES.get(self.encoding, self.encoding)
        rate = self.sample_rate or _DEFAULT_RATES.get(encoding, SOURCE_RATE)
        return sound_format(encoding, rate, self.container, self.bitrate)


def _named(value: object) -> object:
    return {"encoding": value} if isinstance(value, str) else value


_Name = Annotated[str, Field(json_schema_extra=_KNOWN)]
AnyFormat = Annotated[
    SoundFormat, BeforeValidator(_named, json_schema_input_type=_Name | SoundFormat)
]


class SpeechRequest(Body):
    """A text and how to speak it."""

    text: str = Field(description="What to say.", examples=["Hello world."])
    voice: str | None = Field(default=None, max_length=200, description="See /voices.")
    backend: str | None = Field(default=None, max_length=200, description="See /backends.")
    opts: dict[str, Any] = Field(
        default_factory=dict, description="The backend's own options, such as `speed`."
    )
    format: AnyFormat = Field(
        default=SoundFormat(), description="The name of an encoding, or an object."
    )
    language: LanguageTag | None = Field(default=None, description="A BCP 47 tag, such as `pt-BR`.")
    instructions: str | None = Field(
        default=None, max_length=4_000, description="How to say it, for backends that take that."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="The same seed gives the same sound."
    )


class StreamQuery(Body):
    """The query of WS /stream."""

    text: str
    voice: str | None = None
    backend: str | None = None
    format: str | None = None
    sample_rate: int | None = None
    opts: str | None = Field(default=None, description="A JSON object.")
    language: str | None = None
    instructions: str | None = None
    timestamps: bool | None = None
    seed: int | None = None


async def speak(request: Request, body: SpeechRequest) -> Response:
    """Speak a text.

    The answer begins with the first sound and grows while the rest is made. A WAV says a length of
    0xFFFFFFFF, since nobody knows it yet. When speech fails after its beginning the connection
    breaks off: a body with its end is whole.
    """
    service: SpeechService = request.app.state.speech
    check_text(service, body.text)
    fmt = body.format.resolved()
    asked = wire.Configure(
        voice=body.voice,
        backend=body.backend,
        opts=body.opts,
        language=body.language,
        instructions=body.instructions,
        seed=body.seed,
    )
    items = service.speak(body.text, asked, request.scope["state"].get("tenant", ""), door="tts")
    return SpokenTurn(items, await codec(fmt), service.limits.send_deadline)


class _OneTurn(Channel):
    """A socket of ``/stream``: its query is its first message, and only sound and its end go out.

    What the client sends goes on to the conversation: it may cancel.
    """

    def __init__(self, socket: Channel, first: str) -> None:
        self._socket = socket
        self._first: str | None = first

    async def receive(self) -> str:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._socket.receive()

    async def send(self, *messages: str | bytes) -> None:
        loud = (m for m in messages if isinstance(m, bytes) or json.loads(m)["type"] not in _QUIET)
        await self._socket.send(*loud)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason)


class Stream:
    """``WS /stream?text=…``: frames, then ``done``, then the close. A client may cancel."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: SpeechService = scope["app"].state.speech
        socket = await accept(scope, receive, send)
        if socket is None:
            return
        try:
            channel = _OneTurn(socket, _first_message(query_of(scope)))
        except VoiceServerError as exc:
            await service.refuse(socket, exc)
            return
        await service.converse(channel, scope["state"].get("tenant", ""), door="stream")


def _first_message(query: dict[str, str]) -> str:
    """The message of /stream-tokens that asks for the same. Raises InvalidRequest."""
    asked = check(StreamQuery, query)
    if not asked.text.strip():
        raise RequestError("text › expected something to say", code="no_text")
    message: dict[str, Any] = asked.model_dump(exclude={"text", "format", "sample_rate", "opts"})
    message = {key: value for key, value in message.items() if value is not None}
    if asked.opts is not None:
        message["opts"] = _options(asked.opts)
    if asked.format is not None or asked.sample_rate is not None:
        encoding = _NAMES.get(asked.format or "pcm", asked.format or "pcm")
        rate = asked.sample_rate or _DEFAULT_RATES.get(encoding, SOURCE_RATE)
        message["format"] = {"encoding": encoding, "sample_rate": rate}
    return json.dumps({**message, "token": asked.text, "done": True})


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise RequestError('opts › expected a JSON object such as {"speed": 1.2}')
    return options


def routes() -> list[BaseRoute]:
    media_types = dict.fromkeys(
        kind for encoding in ENCODINGS.values() for kind in encoding.containers.values()
    )
    sound = Content(tuple(media_types), "The sound, in the format asked for")

    def max_body(request: Request) -> int:
        # A character takes twelve bytes at most, as an escaped pair.
        service: SpeechService = request.app.state.speech
        return 12 * service.limits.max_turn_chars + 65_536

    return [
        Operation(
            *("POST", "/tts", speak),
            tag="speech",
            body=SpeechRequest,
            answers={200: sound},
            errors=[404, 502, 503],
            max_body=max_body,
        ),
        WebSocketRoute("/stream", Stream()),
    ]
