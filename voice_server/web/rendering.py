"""Speaks a whole text for the doors that answer with a file."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import HTTPConnection
from starlette.responses import FileResponse

from voice_server.audio.formats import SOURCE_RATE
from voice_server.core import wire
from voice_server.core.delivery import Frame
from voice_server.core.errors import Conflict, RequestError, UnknownVoice, VoiceServerError
from voice_server.core.voices import Voice, can_speak
from voice_server.speech.service import READY_TIMEOUT, SpeechService
from voice_server.storage.catalogue import Catalogue
from voice_server.web.errors import error_of
from voice_server.web.sound import check_text


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text, spoken. ``pcm``: int16 little endian, mono, 24 kHz."""

    pcm: bytes
    backend: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.pcm) / 2 / SOURCE_RATE


async def render(
    connection: HTTPConnection,
    text: str,
    voice: str | None,
    *,
    backend: str | None = None,
    language: str | None = None,
    instructions: str | None = None,
    seed: int | None = None,
) -> Rendered:
    """Speak ``text`` as ``voice``, on ``backend`` or on the first that can.

    Raises RequestError (``no_text``) for a text in which nothing can be spoken, TooLarge, and what
    a turn raises; a segment that fails is an error of the whole.
    """
    service: SpeechService = connection.app.state.speech
    check_text(service, text)
    if backend is None:
        backend = await backend_for(connection, voice)
    asked = wire.Configure(
        voice=voice, backend=backend, language=language, instructions=instructions, seed=seed
    )
    tenant = connection.scope["state"].get("tenant", "")
    pcm = bytearray()
    async with aclosing(service.speak(text, asked, tenant, door="generate")) as items:
        async for item in items:
            if isinstance(item, Frame):
                pcm += item.pcm
            elif item["type"] == "error":
                raise error_of(item)
    if not pcm:
        raise RequestError("nothing in this text can be spoken", code="no_text")
    return Rendered(bytes(pcm), backend)


def kept_sound(path: Path, filename: str | None = None) -> FileResponse:
    """The WAV of a row, of which ranges can be asked for. Raises Conflict (``file_missing``)."""
    if not path.is_file():
        raise Conflict(
            f"its sound, {path.name}, is not on the server's disk any more; restore the file "
            "there, or delete the entry",
            code="file_missing",
        )
    return FileResponse(path, media_type="audio/wav", filename=filename)


async def backend_for(connection: HTTPConnection, name: str | None) -> str:
    """The default backend if it can speak the voice, else the first running one that can.

    Raises UnknownVoice (``voice_not_supported``) when none can.
    """
    service: SpeechService = connection.app.state.speech
    catalogue: Catalogue = connection.app.state.catalogue
    default, _ = service.pool(None)
    voice = _stored(catalogue, name)
    if voice is None or not (voice.samples or voice.design):
        return default
    for backend, pool in service.pools.items():
        if pool.info is None:
            # Its workers are still loading; all load at once, so waiting for one waits for all.
            with suppress(VoiceServerError):
                await pool.wait_ready(READY_TIMEOUT)
        if pool.info is not None and can_speak(pool.info, voice):
            return backend
    need = "clone a recording" if voice.samples else "design a voice"
    raise UnknownVoice(
        f"no running backend can {need}, which voice {voice.id!r} needs; start one that can "
        "(see GET /backends), for instance with --backend",
        code="voice_not_supported",
    )


def _stored(catalogue: Catalogue, name: str | None) -> Voice | None:
    if not name:
        return None
    try:
        return catalogue.find(name)
    except UnknownVoice:
        return None
