"""``/profiles``: voices as profiles that collect samples. Every stored voice is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, RootModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server.control.cloning import clean_fields, clean_name, new_id
from voice_server.control.plane import ControlPlane
from voice_server.core.voices import Kind, Sample, Voice
from voice_server.web.language import VoiceLanguage
from voice_server.web.operations import Body, Content, Operation, Upload
from voice_server.web.rendering import kept_sound
from voice_server.web.uploads import MAX_UPLOAD, read_upload


class NewProfile(Body):
    """A profile to be made."""

    name: str = Field(max_length=200, description="Unique, whatever its case.")
    description: str | None = None
    language: VoiceLanguage = "en"


class ProfileChanges(Body):
    """Fields to be changed; what is left out stays."""

    name: str | None = Field(default=None, max_length=200)
    description: str | None = None
    language: VoiceLanguage | None = None
    tags: list[str] | None = Field(default=None, max_length=64)


class NewSampleForm(Body):
    """A recording to be added."""

    file: Upload
    reference_text: str | None = Field(
        default=None, description="What is said in it; transcribed when left out, if that can be."
    )


class Profile(BaseModel):
    """A voice, as a profile."""

    id: str
    name: str
    description: str
    language: str
    created_at: str
    updated_at: str
    kind: Kind
    tags: list[str]
    samples: int


class ProfileSample(BaseModel):
    """A sample of a profile."""

    id: str
    profile_id: str
    audio_path: str
    audio_url: str
    reference_text: str
    duration: float = Field(description="Seconds, of what is used.")
    sample_rate: int = Field(description="Hertz, of what was given.")
    loudness: float | None = Field(description="LUFS.")
    warnings: list[str] = Field(description="What could be better, and how.")
    transcript_note: str = Field(default="", description="Why there is no text, if there is none.")


class Profiles(RootModel[list[Profile]]):
    """Profiles, newest first."""


class ProfileSamples(RootModel[list[ProfileSample]]):
    """The samples of a profile, in the order in which they are joined."""


class Deleted(BaseModel):
    """It is gone."""

    message: str
    id: str


class Page(BaseModel):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Entries in one answer.")] = 1000
    offset: Annotated[
        int, Field(ge=0, lt=2**63, description="Entries to leave out before them.")
    ] = 0


async def create(request: Request, body: NewProfile) -> Profile:
    """Make a profile. It can be spoken as soon as it has a sample."""
    fields = clean_fields({"description": body.description or "", "language": body.language})
    voice = Voice(
        id=new_id(), name=clean_name(body.name), kind="cloned", source="profile", **fields
    )
    return _profile(await _plane(request).catalogue.create(voice, is_name_unique=True))


async def list_all(request: Request, query: Page) -> Profiles:
    """List the profiles: all voices that were made, whichever way."""
    voices = _plane(request).catalogue.voices()[query.offset : query.offset + query.limit]
    return Profiles([_profile(voice) for voice in voices])


async def get(request: Request) -> Profile:
    """One profile."""
    return _profile(_voice(request))


async def update(request: Request, body: ProfileChanges) -> Profile:
    """Change a profile."""
    changes = {key: value for key, value in body.model_dump().items() if value is not None}
    if "name" in changes:
        changes["name"] = clean_name(changes["name"])
    if "tags" in changes:
        changes["tags"] = tuple(clean_name(tag) for tag in changes["tags"])
    plane = _plane(request)
    voice_id = _voice(request).id
    changed = await plane.catalogue.update(
        voice_id, is_name_unique="name" in changes, **clean_fields(changes)
    )
    return _profile(changed)


async def delete(request: Request) -> Deleted:
    """Delete a profile with all its samples."""
    gone = await _plane(request).catalogue.delete(_voice(request).id)
    return Deleted(message="Profile deleted", id=gone.id)


async def add_sample(request: Request, form: NewSampleForm) -> ProfileSample:
    """Add a recording to a profile.

    Audio or video. Silence at its ends is cut and its loudness set; what was given is kept too.
    """
    plane = _plane(request)
    voice = _voice(request)
    data = await read_upload(form.file)
    new, _, why = await plane.cloning.sample(
        data, form.reference_text, language=voice.language or None
    )
    sample = await plane.catalogue.add_sample(voice.id, new)
    return _sample(voice.id, sample, why)


async def list_samples(request: Request) -> ProfileSamples:
    """The samples of a profile."""
    voice = _voice(request)
    return ProfileSamples([_sample(voice.id, sample) for sample in voice.samples])


async def delete_sample(request: Request) -> Deleted:
    """Delete a sample."""
    sample_id = request.path_params["sample_id"]
    await _plane(request).catalogue.remove_sample(sample_id)
    return Deleted(message="Sample deleted", id=sample_id)


async def sample_audio(request: Request) -> Response:
    """The sound of a sample: mono, 24 kHz. Ranges can be asked for."""
    _, sample = _plane(request).catalogue.sample(request.path_params["sample_id"])
    return kept_sound(Path(sample.path))


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.control
    return plane


def _voice(request: Request) -> Voice:
    return _plane(request).catalogue.get(request.path_params["profile_id"])


def _profile(voice: Voice) -> Profile:
    return Profile(
        id=voice.id,
        name=voice.name,
        description=voice.description,
        language=voice.language,
        created_at=voice.created_at,
        updated_at=voice.updated_at,
        kind=voice.kind,
        tags=list(voice.tags),
        samples=len(voice.samples),
    )


def _sample(voice_id: str, sample: Sample, why: str = "") -> ProfileSample:
    return ProfileSample(
        id=sample.id,
        profile_id=voice_id,
        audio_path=sample.path,
        audio_url=f"/profiles/samples/{sample.id}/audio",
        reference_text=sample.transcript or "",
        duration=sample.duration,
        sample_rate=sample.sample_rate,
        loudness=sample.loudness,
        warnings=list(sample.notes),
        transcript_note=why,
    )


def routes() -> list[BaseRoute]:
    tag = "profiles"
    one, its_samples = "/profiles/{profile_id}", "/profiles/{profile_id}/samples"
    sample = "/profiles/samples/{sample_id}"
    wav = Content(("audio/wav",), "The sample")
    return [
        Operation(
            *("POST", "/profiles", create),
            tag=tag,
            body=NewProfile,
            answers={200: Profile},
            errors=[409, 507],
        ),
        Operation("GET", "/profiles", list_all, tag=tag, query=Page, answers={200: Profiles}),
        Operation(
            "GET", f"{sample}/audio", sample_audio, tag=tag, answers={200: wav}, errors=[404, 409]
        ),
        Operation(
            "DELETE", sample, delete_sample, tag=tag, answers={200: Deleted}, errors=[404, 409]
        ),
        Operation("GET", one, get, tag=tag, answers={200: Profile}, errors=[404]),
        Operation(
            *("PUT", one, update),
            tag=tag,
            body=ProfileChanges,
            answers={200: Profile},
            errors=[404, 409, 507],
        ),
        Operation("DELETE", one, delete, tag=tag, answers={200: Deleted}, errors=[404, 409]),
        Operation(
            *("POST", its_samples, add_sample),
            tag=tag,
            form=NewSampleForm,
            answers={200: ProfileSample},
            errors=[404, 409, 503, 507],
            max_body=MAX_UPLOAD,
        ),
        Operation(
            *("GET", its_samples, list_samples),
            tag=tag,
            answers={200: ProfileSamples},
            errors=[404],
        ),
    ]
