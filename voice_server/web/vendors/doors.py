"""Every vendor's door. None matches another vendor's client, so their order says nothing."""

from __future__ import annotations

from types import ModuleType

from starlette.routing import BaseRoute

from voice_server.web.vendors import (
    cartesia,
    cartesia_voices,
    deepgram,
    elevenlabs,
    elevenlabs_lists,
    elevenlabs_sockets,
    openai,
    openai_transcription,
    telephony,
)

_DOORS: tuple[ModuleType, ...] = (
    cartesia,
    cartesia_voices,
    deepgram,
    elevenlabs,
    elevenlabs_lists,
    elevenlabs_sockets,
    openai,
    openai_transcription,
    telephony,
)


def routes() -> list[BaseRoute]:
    return [route for door in _DOORS for route in door.routes()]
