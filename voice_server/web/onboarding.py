"""``/api/public/voice/onboarding``: a voice from one recording, audio or video, in one call."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.audio.encode import encode_whole
from voice_server.control.plane import ControlPlane
from voice_server.core.errors import UnknownVoice, VoiceServerError
from voice_server.core.voices import Voice
from voice_server.web.operations import Body, Operation, Upload
from voice_server.web.rendering import backend_for, render
from voice_server.web.uploads import MAX_UPLOAD, read_upload

PREFIX = "/api/public/voice/onboarding"
DEFAULT_TEXT = "Hello, this is my cloned voice."
_MAX_SAMPLE_TEXT = 1_000


class OnboardingForm(Body):
    """A recording of the user."""

    audio_file: Upload
    user_id: str | None = Field(default=None, max_length=200)
    voice_name: str | None = Field(default=None, max_length=200)
    sample_text: str | None = Field(
        default=None, max_length=_MAX_SAMPLE_TEXT, description="Spoken in the new voice at once."
    )
    transcript: str | None = Field(default=None, description="What is said in the recording.")
    consent: str | None = Field(
        default=None, max_length=2_000, description="Who allowed this, in what words; kept."
    )


class TestForm(Body):
    """What to say."""

    text: str = Field(default=DEFAULT_TEXT, max_length=_MAX_SAMPLE_TEXT)


class Onboarded(BaseModel):
    """The voice exists."""

    success: Literal[True] = True
    voice_id: str
    voice_name: str
    sample_text: str | None
    sample_audio: str | None = Field(description="A data URI with an MP3.")
    sample_error: str = Field(description="Why the text could not be spoken, if it could not.")
    duration: float
    warnings: list[str]
    transcript: str
    transcript_note: str


class OnboardingStatus(BaseModel):
    """How it stands with a voice."""

    success: Literal[True] = True
    voice_id: str
    voice_name: str
    status: Literal["ready", "waiting"] = Field(
        description="`waiting` while no running backend can speak it."
    )
    detail: str
    user_id: str
    created_at: str
    duration: float


class Tested(BaseModel):
    """The voice spoke."""

    success: Literal[True] = True
    voice_id: str
    text: str
    audio: str = Field(description="A data URI with an MP3.")
    duration: float


class Removed(BaseModel):
    """The voice is gone."""

    success: Literal[True] = True
    voice_id: str
    message: str


async def clone(request: Request, form: OnboardingForm) -> Onboarded:
    """Make a voice of a recording.

    MP3, WAV, M4A, AAC, OGG, FLAC, or the sound of MP4, MOV, AVI, WebM, MKV, FLV; 2 seconds to
    5 minutes; 50 MB.
    """
    plane = _plane(request)
    made = await plane.cloning.clone(
        await read_upload(form.audio_file),
        name=(form.voice_name or "").strip() or "My Voice",
        voice_id=f"voice_{secrets.token_hex(6)}",
        transcript=form.transcript,
        owner=form.user_id or "",
        source="onboarding",
        consent={"statement": form.consent} if form.consent else None,
    )
    voice, audio, error = made.voice, None, ""
    if form.sample_text and form.sample_text.strip():
        try:
            audio, _ = await _mp3(request, voice, form.sample_text)
        except VoiceServerError as exc:
            # The voice is there all the same; it can be tested again.
            error = str(exc)
    return Onboarded(
        voice_id=voice.id,
        voice_name=voice.name,
        sample_text=form.sample_text,
        sample_audio=audio,
        sample_error=error,
        duration=voice.samples[0].duration,
        warnings=list(voice.samples[0].notes),
        transcript=voice.samples[0].transcript or "",
        transcript_note=made.transcript_note,
    )


async def status(request: Request) -> OnboardingStatus:
    """Whether a voice can be spoken now."""
    voice = _voice(request)
    state: Literal["ready", "waiting"] = "ready"
    try:
        detail = f"spoken by backend {await backend_for(request, voice.id)!r}"
    except UnknownVoice as exc:
        state, detail = "waiting", str(exc)
    return OnboardingStatus(
        voice_id=voice.id,
        voice_name=voice.name,
        status=state,
        detail=detail,
        user_id=voice.owner,
        created_at=voice.created_at,
        duration=sum(sample.duration for sample in voice.samples),
    )


async def test(request: Request, form: TestForm) -> Tested:
    """Hear a text in a voice."""
    voice = _voice(request)
    audio, duration = await _mp3(request, voice, form.text)
    return Tested(voice_id=voice.id, text=form.text, audio=audio, duration=duration)


async def delete(request: Request) -> Removed:
    """Delete a voice with its recordings."""
    voice = await _plane(request).catalogue.delete(_voice(request).id)
    return Removed(voice_id=voice.id, message="Voice profile deleted")


async def _mp3(request: Request, voice: Voice, text: str) -> tuple[str, float]:
    rendered = await render(request, text, voice.id)
    mp3 = await asyncio.to_thread(encode_whole, rendered.pcm, "mp3")
    data = base64.b64encode(mp3).decode()
    return f"data:audio/mp3;base64,{data}", round(rendered.duration, 3)


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.control
    return plane


def _voice(request: Request) -> Voice:
    return _plane(request).catalogue.get(request.path_params["voice_id"])


def routes() -> list[BaseRoute]:
    tag = "onboarding"
    one = PREFIX + "/{voice_id}"
    return [
        Operation(
            *("POST", f"{PREFIX}/clone", clone),
            tag=tag,
            form=OnboardingForm,
            answers={200: Onboarded},
            errors=[503, 507],
            max_body=MAX_UPLOAD,
        ),
        Operation(
            *("GET", f"{PREFIX}/status/{{voice_id}}", status),
            tag=tag,
            answers={200: OnboardingStatus},
            errors=[404],
        ),
        Operation(
            *("POST", f"{PREFIX}/test/{{voice_id}}", test),
            tag=tag,
            form=TestForm,
            answers={200: Tested},
            errors=[404, 502, 503],
        ),
        Operation("DELETE", one, delete, tag=tag, answers={200: Removed}, errors=[404, 409]),
    ]
