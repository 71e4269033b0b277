"""Upload, preview, save: the life of a voice before it is one.

    POST /preview ─► session (12 h) ─► sound (20 min)
                        │  WS /ws generate_preview ─► more sound
                        └─ WS /ws save_voice ─► a voice of the catalogue, for good

A WebSocket remembers the last session it was used with, so that ``save_voice`` needs no id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_server.audio.encode import encode_whole
from voice_server.control.cloning import clean_fields, clean_name, store_new
from voice_server.control.plane import ControlPlane, voice_of
from voice_server.core.errors import RequestError, VoiceServerError
from voice_server.core.voices import Voice, slug_from_name
from voice_server.storage.previews import Session
from voice_server.web.language import VoiceLanguage
from voice_server.web.operations import Body, Content, Operation, Upload, check
from voice_server.web.rendering import Rendered, render
from voice_server.web.uploads import MAX_UPLOAD, read_upload

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 65_536


class PreviewForm(Body):
    """A recording, what is said in it, and what to say in its voice."""

    audio: Upload
    transcription: str | None = Field(
        default=None, description="Transcribed when left out, if that can be."
    )
    response_text: str


class UploadForm(Body):
    """A recording."""

    audio: Upload
    transcription: str | None = None


class FromVoiceForm(Body):
    """A saved voice and what to say."""

    voice_id: str
    response_text: str


class Uploaded(BaseModel):
    """The recording is kept for a while."""

    session_id: str
    transcription: str
    duration: float
    warnings: list[str]
    transcript_note: str = Field(description="Why there is no text, if there is none.")


class GeneratePreview(Body):
    """``data`` of ``generate_preview``."""

    session_id: str | None = None
    text: str


class SaveVoice(Body):
    """``data`` of ``save_voice``."""

    name: str
    description: str = ""
    session_id: str | None = None
    language: VoiceLanguage = ""
    voice_id: str | None = None


async def preview(request: Request, form: PreviewForm) -> Response:
    """Upload a recording and hear a text in its voice.

    The answer is a WAV. Its header `X-Session-Id` names the upload, to be used in WS /ws;
    `X-Job-Id` names the sound, which /previews/{job_id}.wav gives again for a while.
    """
    session, _ = await _uploaded(request, form.audio, form.transcription)
    rendered = await _spoken(request, session, form.response_text)
    return await _wav(request, rendered, {"X-Session-Id": session.id})


async def upload(request: Request, form: UploadForm) -> Uploaded:
    """Upload a recording. Deprecated: POST /preview does this and speaks."""
    session, why = await _uploaded(request, form.audio, form.transcription)
    return Uploaded(
        session_id=session.id,
        transcription=session.transcript or "",
        duration=session.duration,
        warnings=list(session.notes),
        transcript_note=why,
    )


async def preview_from_voice(request: Request, form: FromVoiceForm) -> Response:
    """Hear a text in a voice that was saved."""
    voice = _plane(request).catalogue.find(form.voice_id)
    rendered = await render(request, form.response_text, voice.id)
    return await _wav(request, rendered, {"X-Voice-Id": voice.id})


async def preview_sound(request: Request) -> Response:
    """The sound of a preview, while it is kept."""
    job_id = request.path_params["job_id"]
    path = await asyncio.to_thread(_plane(request).previews.preview, job_id)
    return FileResponse(path, media_type="audio/wav")


class LifecycleSocket:
    """``WS /ws``: ``generate_preview`` and ``save_voice``, answered in the order they came."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._plane = _plane(socket)
        self._pins = contextlib.ExitStack()
        self._session: str | None = None

    async def run(self) -> None:
        """Serve the connection until it is gone."""
        await self._socket.accept()
        with self._pins:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                try:
                    answer = await self._answer(message.get("text"))
                except VoiceServerError as exc:
                    answer = {
                        "type": "error",
                        "data": {"detail": str(exc), "code": exc.code, "retryable": exc.retryable},
                    }
                try:
                    await self._socket.send_text(json.dumps(answer))
                except (WebSocketDisconnect, RuntimeError, OSError):
                    return

    async def _answer(self, text: str | None) -> dict[str, Any]:
        if text is None:
            raise RequestError("messages are JSON text, not binary", code="binary_message")
        if len(text) > _MAX_MESSAGE:
            raise RequestError(f"a message has at most {_MAX_MESSAGE} characters")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise RequestError("the message is not JSON", code="invalid_json") from None
        if not isinstance(message, dict) or not isinstance(message.get("data", {}), dict):
            raise RequestError('expected {"type": …, "data": {…}}')
        data = message.get("data", {})
        match message.get("type"):
            case "generate_preview":
                return await self._preview(check(GeneratePreview, data))
            case "save_voice":
                return await self._save(check(SaveVoice, data))
            case "ping":
                return {"type": "pong", "data": {}}
        raise RequestError(
            f"unknown message type {str(message.get('type'))[:40]!r}; "
            "possible are generate_preview, save_voice and ping"
        )

    async def _preview(self, asked: GeneratePreview) -> dict[str, Any]:
        session = await self._find(asked.session_id)
        rendered = await _spoken(self._socket, session, asked.text)
        wav = encode_whole(rendered.pcm)
        job_id = await asyncio.to_thread(self._plane.previews.add_preview, wav)
        return {
            "type": "tts_complete",
            "data": {
                "job_id": job_id,
                "audio_url": f"/previews/{job_id}.wav",
                "temporary": True,
                "session_id": session.id,
                "duration": round(rendered.duration, 3),
            },
        }

    async def _save(self, asked: SaveVoice) -> dict[str, Any]:
        session = await self._find(asked.session_id)
        name = clean_name(asked.name)
        fields = clean_fields({"description": asked.description, "language": asked.language})
        voice = Voice(
            id=asked.voice_id or slug_from_name(name),
            name=name,
            kind="cloned",
            source="preview",
            **fields,
        )
        sample = await asyncio.to_thread(session.sample)
        stored = await store_new(self._plane.catalogue, voice, [sample])
        self._forget()
        await asyncio.to_thread(self._plane.previews.close_session, session.id)
        return {
            "type": "voice_saved",
            "data": {
                "voice_id": stored.id,
                "name": stored.name,
                "description": stored.description,
            },
        }

    async def _find(self, session_id: str | None) -> Session:
        if session_id is None and self._session is None:
            raise RequestError(
                "session_id › expected one: this connection has made no preview yet",
                code="no_session",
            )
        wanted = session_id or self._session
        session = await asyncio.to_thread(self._plane.previews.session, wanted)
        if session.id != self._session:
            self._forget()
            self._pins.enter_context(self._plane.previews.pinned(session.id))
            self._session = session.id
        return session

    def _forget(self) -> None:
        self._pins.close()
        self._session = None


async def lifecycle_socket(socket: WebSocket) -> None:
    await LifecycleSocket(socket).run()


async def _uploaded(
    request: Request, audio: Upload, transcription: str | None
) -> tuple[Session, str]:
    plane = _plane(request)
    sample, _, why = await plane.cloning.sample(await read_upload(audio), transcription)
    return await asyncio.to_thread(plane.previews.open_session, sample), why


async def _spoken(connection: HTTPConnection, session: Session, text: str) -> Rendered:
    plane = _plane(connection)
    with plane.previews.pinned(session.id), plane.catalogue.lent(voice_of(session)):
        return await render(connection, text, session.id)


async def _wav(request: Request, rendered: Rendered, headers: dict[str, str]) -> Response:
    wav = encode_whole(rendered.pcm)
    job_id = await asyncio.to_thread(_plane(request).previews.add_preview, wav)
    headers |= {"X-Job-Id": job_id, "X-Backend": rendered.backend}
    return Response(wav, media_type="audio/wav", headers=headers)


def _plane(connection: HTTPConnection) -> ControlPlane:
    plane: ControlPlane = connection.app.state.control
    return plane


def routes() -> list[BaseRoute]:
    tag = "previews"
    wav = Content(("audio/wav",), "The sound")
    speaking = [404, 409, 502, 503, 507]
    return [
        Operation(
            *("POST", "/preview", preview),
            tag=tag,
            form=PreviewForm,
            answers={200: wav},
            errors=speaking,
            max_body=MAX_UPLOAD,
        ),
        Operation(
            *("POST", "/upload", upload),
            tag=tag,
            form=UploadForm,
            answers={200: Uploaded},
            errors=[503, 507],
            max_body=MAX_UPLOAD,
        ),
        Operation(
            *("POST", "/preview-from-voice", preview_from_voice),
            tag=tag,
            form=FromVoiceForm,
            answers={200: wav},
            errors=speaking,
        ),
        Operation(
            *("GET", "/previews/{job_id}.wav", preview_sound),
            tag=tag,
            answers={200: wav},
            errors=[404],
        ),
        WebSocketRoute("/ws", lifecycle_socket),
    ]
