"""ElevenLabs' voices and models: ``/v1/voices``, ``/v2/voices``, ``/v1/models``.

https://elevenlabs.io/docs/api-reference/voices
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, RootModel
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.control.plane import ControlPlane
from voice_server.core.errors import UnknownVoice
from voice_server.core.voices import Voice
from voice_server.web.operations import Upload
from voice_server.web.uploads import MAX_UPLOAD, read_upload
from voice_server.web.vendors.operation import CLONING_ERRORS, Body, VendorOperation
from voice_server.web.voices import every_voice

_MODELS: Final = ("eleven_multilingual_v2", "eleven_turbo_v2_5", "eleven_flash_v2_5", "eleven_v3")


class VoicesQuery(Body):
    """The query of ``GET /v2/voices``."""

    page_size: Annotated[int, Field(ge=1, le=100)] = 10
    next_page_token: Annotated[str, Field(pattern=r"^\d{1,9}$")] | None = None
    search: str | None = None


def _listed_files(value: object) -> object:
    """A form does not tell a list of one file from that file."""
    return value if isinstance(value, list) else [value]


class ElevenLabsVoiceForm(Body):
    """The form of ``POST /v1/voices/add``: one recording or several of the same person."""

    name: str
    files: Annotated[list[Upload], BeforeValidator(_listed_files), Field(min_length=1)]
    description: str | None = None


class ElevenLabsVoice(BaseModel):
    """A voice."""

    voice_id: str
    name: str
    category: Literal["premade", "cloned"]
    description: str | None
    labels: dict[str, str]
    samples: list[str] = []
    preview_url: str | None = None
    settings: None = None
    available_for_tiers: list[str] = []
    high_quality_base_model_ids: list[str] = []


class ElevenLabsVoices(BaseModel):
    """Voices."""

    voices: list[ElevenLabsVoice]


class ElevenLabsVoicePage(ElevenLabsVoices):
    """Some voices, and how to ask for the next ones."""

    has_more: bool
    total_count: int
    next_page_token: str | None


class AddedVoice(BaseModel):
    """The voice that was made."""

    voice_id: str
    requires_verification: bool = False


class DeletedVoice(BaseModel):
    """It is gone."""

    status: Literal["ok"] = "ok"


class ElevenLabsLanguage(BaseModel):
    """A language by its tag."""

    language_id: str
    name: str


class ElevenLabsModel(BaseModel):
    """A model."""

    model_id: str
    name: str
    can_do_text_to_speech: bool = True
    can_do_voice_conversion: bool = False
    languages: list[ElevenLabsLanguage]


class ElevenLabsModels(RootModel[list[ElevenLabsModel]]):
    """The models."""


async def voices(request: Request) -> ElevenLabsVoices:
    """Every voice."""
    return ElevenLabsVoices(voices=list(map(_listed, _found(request))))


async def voices_page(request: Request, query: VoicesQuery) -> ElevenLabsVoicePage:
    """Voices page by page."""
    sought = (query.search or "").casefold()
    found = [voice for voice in _found(request) if sought in _said(voice).casefold()]
    start = int(query.next_page_token or 0)
    end = start + query.page_size
    has_more = end < len(found)
    return ElevenLabsVoicePage(
        voices=list(map(_listed, found[start:end])),
        has_more=has_more,
        total_count=len(found),
        next_page_token=str(end) if has_more else None,
    )


async def voice(request: Request) -> ElevenLabsVoice:
    """One voice."""
    voice_id: str = request.path_params["voice_id"]
    for found in _found(request):
        if found.id == voice_id:
            return _listed(found)
    raise UnknownVoice(f"there is no voice {voice_id[:80]!r}; GET /v1/voices lists all")


async def add(request: Request, form: ElevenLabsVoiceForm) -> AddedVoice:
    """Make a voice of recordings."""
    plane: ControlPlane = request.app.state.control
    first, *others = form.files
    made = await plane.cloning.clone(
        await read_upload(first),
        name=form.name,
        description=form.description or "",
        source="elevenlabs",
    )
    for other in others:
        sample, _, _ = await plane.cloning.sample(await read_upload(other))
        await plane.catalogue.add_sample(made.voice.id, sample)
    return AddedVoice(voice_id=made.voice.id)


async def delete(request: Request) -> DeletedVoice:
    """Delete a voice that was made."""
    plane: ControlPlane = request.app.state.control
    await plane.catalogue.delete(request.path_params["voice_id"])
    return DeletedVoice()


async def models(request: Request) -> ElevenLabsModels:
    """ElevenLabs' model names, which mean the default backend, and the running backends."""
    service = request.app.state.speech
    default = service.pool(None)[1]
    known = [*((name, default) for name in _MODELS), *service.pools.items()]
    return ElevenLabsModels(
        [
            ElevenLabsModel(model_id=name, name=name, languages=_languages(pool))
            for name, pool in known
        ]
    )


def _languages(pool: Any) -> list[ElevenLabsLanguage]:
    tags = pool.info.languages if pool.info else ()
    return [ElevenLabsLanguage(language_id=tag, name=tag) for tag in tags]


def _found(request: Request) -> list[Voice]:
    state = request.app.state
    return [voice for voice, _ in every_voice(state.speech, state.catalogue)]


def _listed(voice: Voice) -> ElevenLabsVoice:
    return ElevenLabsVoice(
        voice_id=voice.id,
        name=voice.display_name or voice.name,
        category="premade" if voice.kind == "builtin" else "cloned",
        description=voice.description or None,
        labels={"language": voice.language} if voice.language else {},
    )


def _said(voice: Voice) -> str:
    """What a search looks at."""
    return "\n".join(
        (voice.id, voice.display_name or voice.name, voice.description, voice.language)
    )


def routes() -> list[BaseRoute]:
    def operation(*said: Any, **more: Any) -> BaseRoute:
        return VendorOperation("elevenlabs", *said, **more)

    one = "/v1/voices/{voice_id}"

    return [
        operation("GET", "/v1/voices", voices, {200: ElevenLabsVoices}),
        operation("GET", "/v2/voices", voices_page, {200: ElevenLabsVoicePage}, query=VoicesQuery),
        operation(
            *("POST", "/v1/voices/add", add, {200: AddedVoice}),
            form=ElevenLabsVoiceForm,
            errors=CLONING_ERRORS,
            max_body=MAX_UPLOAD,
        ),
        operation("GET", one, voice, {200: ElevenLabsVoice}, errors=[404]),
        operation("DELETE", one, delete, {200: DeletedVoice}, errors=[404, 409]),
        operation("GET", "/v1/models", models, {200: ElevenLabsModels}),
    ]
