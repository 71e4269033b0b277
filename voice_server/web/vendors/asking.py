"""What a vendor's client asks for, as a configuration of ours: backend, voice, options."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import BeforeValidator, Field
from starlette.requests import HTTPConnection

from voice_server.core import wire
from voice_server.core.errors import UnknownVoice
from voice_server.speech.service import SpeechService
from voice_server.web.vendors.channel import DEFAULTS
from voice_server.web.vendors.operation import Body


class NamedVoice(Body):
    """A voice by its id."""

    id: str = Field(max_length=200)


def _named(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


AnyVoice = Annotated[NamedVoice, BeforeValidator(_named, json_schema_input_type=str | NamedVoice)]
"""Its id alone will do."""


async def configuration(
    connection: HTTPConnection,
    *,
    voice: str | None,
    model: str | None,
    own_models: re.Pattern[str],
    stand_ins: Collection[str] = (),
    speed: float | None = None,
    instructions: str | None = None,
    language: str | None = None,
    timestamps: bool = False,
    audio_format: wire.AudioFormat = DEFAULTS.format,
) -> wire.Configure:
    """The configuration of a turn.

    A model that ``own_models`` match is the vendor's: then the first backend speaks that knows the
    voice, the default one before others. Any other model is a backend by name. A voice of
    ``stand_ins`` that nobody knows is the backend's default one. Backends that take no instructions
    are given none, as with the vendors' own models; a speed of 1 is no wish.

    Raises UnknownBackend; an unknown voice is found out when the turn begins.
    """
    service: SpeechService = connection.app.state.speech
    await service.known(named(service, model, own_models))
    backend, voice = chosen(service, voice, model, own_models, stand_ins)
    info = await service.known(backend)
    return wire.Configure(
        voice=voice or None,
        backend=backend,
        opts={"speed": speed} if speed not in (None, 1.0) else {},
        instructions=(instructions or None) if info.instructs else None,
        language=language,
        timestamps=timestamps,
        format=audio_format,
        framing=DEFAULTS.framing,
        words_first=DEFAULTS.words_first,
    )


def named(service: SpeechService, model: str | None, own_models: re.Pattern[str]) -> str:
    """The backend that a model names, or the default one. Raises UnknownBackend."""
    is_own = not model or own_models.fullmatch(model)
    return service.pool(None if is_own else model)[0]


def chosen(
    service: SpeechService,
    voice: str | None,
    model: str | None,
    own_models: re.Pattern[str],
    stand_ins: Collection[str] = (),
) -> tuple[str, str | None]:
    """Backend and voice, as ``configuration`` says, among the backends that are warm."""
    backend = named(service, model, own_models)
    if not _speaks(service, backend, voice):
        is_own = not model or own_models.fullmatch(model)
        others = [name for name in service.pools if name != backend] if is_own else []
        able = next((name for name in others if _speaks(service, name, voice)), None)
        if able is not None:
            return able, voice
        if voice in stand_ins:
            return backend, None
    return backend, voice


def _speaks(service: SpeechService, backend: str, voice: str | None) -> bool:
    info, config = service.pools[backend].info, service.config.backend(backend)
    if info is None:
        return False
    try:
        service.catalogue.resolve(
            voice, backend, info, default=config.voice, aliases=config.aliases
        )
    except UnknownVoice:
        return False
    return True
