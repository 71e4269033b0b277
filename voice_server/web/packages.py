"""``/api/v1``: voices as packages, and the calls that go with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voice_server import __version__
from voice_server.audio.encode import encode_whole
from voice_server.audio.formats import sound_format
from voice_server.control.cloning import clean_fields, clean_name, new_id, store_new
from voice_server.control.packages import package_too_large
from voice_server.control.plane import ControlPlane
from voice_server.core.errors import RequestError, UnknownOption
from voice_server.core.manifest import MAX_PACKAGE_BYTES, SUFFIX
from voice_server.core.voices import Voice, slug_from_name
from voice_server.speech.service import SpeechService
from voice_server.web.language import LanguageTag, VoiceLanguage
from voice_server.web.operations import FORM_ROOM, Body, Content, Operation, Upload
from voice_server.web.rendering import render
from voice_server.web.uploads import MAX_UPLOAD, read_upload

PREFIX = "/api/v1/tts"


class Described(BaseModel):
    """A voice in the words of its package."""

    voice_id: str
    name: str
    display_name: str
    voice_type: str
    description: str
    ref_text: str
    ref_duration_s: float
    source: str
    design_description: str
    design_language: str
    created_at: str
    casting_notes: str
    model_used: str
    language: str
    tags: list[str]
    samples: int


class DescribedVoices(BaseModel):
    """Voices that were made, newest first."""

    voices: list[Described]
    total: int


class ListQuery(BaseModel):
    """Which voices."""

    limit: int = Field(default=1000, ge=1, le=1000)
    offset: int = Field(default=0, ge=0)


class ImportForm(Body):
    """A package."""

    file: Upload


class ImportQuery(BaseModel):
    """What happens to an id that is taken."""

    on_conflict: Literal["error", "skip", "rename", "replace"] = "error"


class Imported(BaseModel):
    """The voice of the package."""

    status: Literal["imported", "skipped"]
    voice_id: str
    voice: Described


class SyncedVoice(BaseModel):
    """A voice as another server would compare it."""

    voice_id: str
    digest: str = Field(description="Equal here and there: nothing to send.")
    package_url: str


class Synced(BaseModel):
    """Every voice that can be packed."""

    status: Literal["ok"] = "ok"
    synced: int
    voices: list[SyncedVoice]


class CloneForm(Body):
    """A recording and the voice to be made of it."""

    file: Upload
    name: str = Field(max_length=200)
    voice_id: str | None = None
    ref_text: str | None = Field(default=None, description="What is said in it.")
    display_name: str = ""
    description: str = ""
    language: VoiceLanguage = ""
    casting_notes: str = ""
    tags: str = Field(default="", max_length=2_000, description="With commas between.")
    consent: str | None = Field(default=None, max_length=2_000)


class DesignRequest(Body):
    """A description to make a voice of."""

    name: str = Field(max_length=200)
    description: str = Field(min_length=1, max_length=4_000, description="How it sounds.")
    language: VoiceLanguage = ""
    display_name: str = Field(default="", max_length=200)
    casting_notes: str = ""
    backend: str | None = None
    sample_text: str | None = Field(
        default=None,
        max_length=1_000,
        description="Spoken once and kept as the voice's recording, so that it stays the same.",
    )


class SynthesizeRequest(Body):
    """A text and the voice to say it."""

    text: str
    voice_id: str | None = Field(default=None, max_length=200)
    voice: str | None = Field(default=None, max_length=200, description="The same as voice_id.")
    language: LanguageTag | None = None
    backend: str | None = Field(default=None, max_length=200)
    instructions: str | None = Field(default=None, max_length=4_000)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    format: str = Field(default="wav", description="wav, mp3, opus, flac, aac, pcm_s16le, …")
    sample_rate: int = 24_000


class ServerStatus(BaseModel):
    """How the server is."""

    status: Literal["ok", "starting"]
    version: str
    relay: Literal["off", "ok", "away"] = Field(
        description="Whether this server has a relay, and its tunnel to it stands."
    )
    tunnel_connected: bool
    voices: int
    backends: dict[str, bool] = Field(description="Which are ready.")


async def list_voices(request: Request, query: ListQuery) -> DescribedVoices:
    """List the voices that were made."""
    voices = _plane(request).catalogue.voices()
    page = voices[query.offset : query.offset + query.limit]
    return DescribedVoices(voices=[_described(voice) for voice in page], total=len(voices))


async def get_voice(request: Request) -> Described:
    """One voice."""
    return _described(_voice(request))


async def delete_voice(request: Request) -> Described:
    """Delete a voice; the answer is what it was."""
    return _described(await _plane(request).catalogue.delete(_voice(request).id))


async def export(request: Request) -> Response:
    """Download a voice as a package."""
    voice_id = _voice(request).id
    data = await _plane(request).packages.pack(voice_id)
    headers = {"Content-Disposition": f'attachment; filename="{voice_id}{SUFFIX}"'}
    return Response(data, media_type="application/zip", headers=headers)


async def import_package(request: Request, query: ImportQuery, form: ImportForm) -> Imported:
    """Take a package into the catalogue, whole or not at all."""
    data = await form.file.read(MAX_PACKAGE_BYTES + 1)
    done = await _plane(request).packages.unpack(data, query.on_conflict)
    return Imported(
        status="imported" if done.is_new else "skipped",
        voice_id=done.voice.id,
        voice=_described(done.voice),
    )


async def sync(request: Request) -> Synced:
    """List every voice with the digest of its package: what differs is worth fetching."""
    plane = _plane(request)
    voices = list(plane.catalogue.voices())
    digests = await asyncio.to_thread(lambda: [plane.packages.digest(voice) for voice in voices])
    return Synced(
        synced=len(voices),
        voices=[
            SyncedVoice(
                voice_id=voice.id,
                digest=digest,
                package_url=f"{PREFIX}/voices/{voice.id}/package",
            )
            for voice, digest in zip(voices, digests, strict=True)
        ],
    )


async def clone(request: Request, form: CloneForm) -> Described:
    """Make a voice of a recording, audio or video."""
    made = await _plane(request).cloning.clone(
        await read_upload(form.file),
        name=form.name,
        voice_id=form.voice_id or None,
        transcript=form.ref_text,
        is_renamed=not form.voice_id,
        source="clone",
        display_name=form.display_name,
        description=form.description,
        language=form.language,
        casting_notes=form.casting_notes,
        tags=tuple(clean_name(tag) for tag in form.tags.split(",") if tag.strip()),
        consent={"statement": form.consent} if form.consent else None,
    )
    return _described(made.voice)


async def design(request: Request, body: DesignRequest) -> Described:
    """Make a voice of a description, on a backend that designs.

    With `sample_text`, the voice speaks it once, and that recording is the voice from then on.
    """
    plane = _plane(request)
    service: SpeechService = request.app.state.speech
    able = [name for name, pool in service.pools.items() if pool.info and pool.info.designs]
    if body.backend is not None:
        able = [name for name in able if name == service.pool(body.backend)[0]]
    if not able:
        raise UnknownOption(
            "no running backend designs voices from a description; start one that does "
            "(see `designs` in GET /backends)",
            code="design_not_supported",
        )
    name = clean_name(body.name)
    fields: dict[str, Any] = clean_fields(
        {
            "description": body.description,
            "design": body.description,
            "design_language": body.language,
            "language": body.language,
            "display_name": body.display_name,
            "casting_notes": body.casting_notes,
            "model_used": able[0],
        }
    )
    voice = Voice(
        id=slug_from_name(name), name=name, kind="designed", source="voice_design", **fields
    )
    samples = []
    if body.sample_text:
        with plane.catalogue.lent(Voice(new_id(), "", "designed", design=body.description)) as lent:
            rendered = await render(request, body.sample_text, lent.id, backend=able[0])
        sample, _, _ = await plane.cloning.sample(encode_whole(rendered.pcm), body.sample_text)
        samples.append(sample)
    return _described(await store_new(plane.catalogue, voice, samples))


async def synthesize(request: Request, body: SynthesizeRequest) -> Response:
    """Speak a text; the answer is the whole sound."""
    if body.voice and body.voice_id and body.voice != body.voice_id:
        raise RequestError("voice › expected the same as voice_id, or only one of them")
    fmt = sound_format(body.format, body.sample_rate)
    rendered = await render(
        request,
        body.text,
        body.voice_id or body.voice,
        backend=body.backend,
        language=body.language,
        instructions=body.instructions,
        seed=body.seed,
    )
    data = await asyncio.to_thread(encode_whole, rendered.pcm, fmt.encoding, fmt.sample_rate)
    return Response(data, media_type=fmt.content_type, headers={"X-Backend": rendered.backend})


async def status(request: Request) -> ServerStatus:
    """How the server is, in short.

    `ok` as soon as the default backend is ready, and while its model is unloaded: the next turn
    loads it.
    """
    service: SpeechService = request.app.state.speech
    backends = {name: pool.is_ready for name, pool in service.pools.items()}
    is_tunnelled: Callable[[], bool] | None = request.app.state.is_tunnelled
    is_connected = is_tunnelled is not None and is_tunnelled()
    relay: Literal["off", "ok", "away"] = "ok" if is_connected else "away"
    return ServerStatus(
        relay="off" if is_tunnelled is None else relay,
        tunnel_connected=is_connected,
        status="ok" if service.can_speak else "starting",
        version=__version__,
        voices=len(_plane(request).catalogue),
        backends=backends,
    )


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.control
    return plane


def _voice(request: Request) -> Voice:
    return _plane(request).catalogue.get(request.path_params["voice_id"])


def _described(voice: Voice) -> Described:
    first = voice.samples[0] if voice.samples else None
    return Described(
        voice_id=voice.id,
        name=voice.name,
        display_name=voice.display_name or voice.name,
        voice_type=voice.kind,
        description=voice.description,
        ref_text=(first.transcript or "") if first else "",
        ref_duration_s=first.duration if first else 0.0,
        source=voice.source,
        design_description=voice.design,
        design_language=voice.design_language,
        created_at=voice.created_at,
        casting_notes=voice.casting_notes,
        model_used=voice.model_used,
        language=voice.language,
        tags=list(voice.tags),
        samples=len(voice.samples),
    )


def routes() -> list[BaseRoute]:
    tag, one = "packages", PREFIX + "/voices/{voice_id}"
    package = Content(("application/zip",), "The package")
    sound = Content(("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac"), "The sound")
    voices = f"{PREFIX}/voices"
    return [
        Operation(
            *("GET", voices, list_voices), tag=tag, query=ListQuery, answers={200: DescribedVoices}
        ),
        Operation(
            *("POST", f"{voices}/import", import_package),
            tag=tag,
            query=ImportQuery,
            form=ImportForm,
            answers={200: Imported},
            errors=[403, 409, 507],
            max_body=MAX_PACKAGE_BYTES + FORM_ROOM,
            too_large=package_too_large,
        ),
        Operation("POST", f"{voices}/sync", sync, tag=tag, answers={200: Synced}),
        Operation(
            "GET", f"{one}/package", export, tag=tag, answers={200: package}, errors=[404, 409, 413]
        ),
        Operation("GET", one, get_voice, tag=tag, answers={200: Described}, errors=[404]),
        Operation(
            "DELETE", one, delete_voice, tag=tag, answers={200: Described}, errors=[404, 409]
        ),
        Operation(
            *("POST", f"{PREFIX}/clone", clone),
            tag=tag,
            form=CloneForm,
            answers={200: Described},
            errors=[409, 503, 507],
            max_body=MAX_UPLOAD,
        ),
        Operation(
            *("POST", f"{PREFIX}/design", design),
            tag=tag,
            body=DesignRequest,
            answers={200: Described},
            errors=[404, 502, 503, 507],
        ),
        Operation(
            *("POST", f"{PREFIX}/synthesize", synthesize),
            tag=tag,
            body=SynthesizeRequest,
            answers={200: sound},
            errors=[404, 502, 503],
            max_body=8 << 20,
        ),
        Operation("GET", "/api/v1/status", status, tag=tag, answers={200: ServerStatus}),
    ]
