"""Cartesia's list of voices: ``/voices``, ``/voices/{id}``, ``/voices/clone``.

https://docs.cartesia.ai/api-reference/voices
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from voice_server.control.plane import ControlPlane
from voice_server.core.errors import UnknownVoice
from voice_server.core.voices import Voice
from voice_server.web.language import VoiceLanguage
from voice_server.web.operations import Upload
from voice_server.web.uploads import MAX_UPLOAD, read_upload
from voice_server.web.vendors.operation import CLONING_ERRORS, Body, VendorOperation
from voice_server.web.voices import every_voice

_UNPAGED: Final = "2024-06-10"  # the Cartesia-Version before there were pages
_LONG_AGO: Final = "1970-01-01T00:00:00Z"  # of voices that came with an engine


class VoicesQuery(Body):
    """Which voices: a page after one of them, or before."""

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    starting_after: str | None = None
    ending_before: str | None = None
    q: str | None = Field(default=None, description="In its id, name or description.")
    is_owner: bool | None = Field(default=None, description="Those that were made here.")


class CartesiaClip(Body):
    """A recording that becomes a voice."""

    clip: Upload
    name: str
    description: str | None = None
    language: VoiceLanguage | None = None


class Locale(BaseModel):
    """A language that a voice speaks."""

    locale: str
    is_native: bool = True


class CartesiaVoice(BaseModel):
    """A voice."""

    id: str
    name: str
    tagline: str = ""
    description: str
    language: str
    locales: list[Locale]
    created_at: str
    is_owner: bool
    access: Literal["private", "public"]
    visibility: Literal["owner", "all"]
    is_public: bool
    user_id: str = ""
    embedding: list[float] = Field(
        default=[], description="Always empty: older clients ask for it."
    )


class CartesiaVoices(BaseModel):
    """A page of voices."""

    object: Literal["list"] = "list"
    data: list[CartesiaVoice]
    has_more: bool


async def voices(request: Request, query: VoicesQuery) -> CartesiaVoices | Response:
    """A page of voices. Behind the last one there is nothing: the SDK asks until then.

    Clients of the first version are answered with a list, for they know no pages.
    """
    found = _found(request)
    if request.headers.get("cartesia-version") == _UNPAGED:
        return JSONResponse([_told(voice).model_dump(mode="json") for voice in found])
    if query.q:
        sought = query.q.casefold()
        found = [v for v in found if sought in f"{v.id}\n{v.name}\n{v.description}".casefold()]
    if query.is_owner is not None:
        found = [voice for voice in found if (voice.kind != "builtin") is query.is_owner]
    ids = [voice.id for voice in found]
    if query.ending_before is not None:
        end = _position(ids, query.ending_before)
        start = max(0, end - query.limit)
    else:
        start = 0 if query.starting_after is None else _position(ids, query.starting_after) + 1
        end = start + query.limit
    page = [_told(voice) for voice in found[start:end]]
    has_more = start > 0 if query.ending_before is not None else end < len(found)
    return CartesiaVoices(data=page, has_more=has_more)


async def voice(request: Request) -> CartesiaVoice:
    """One voice."""
    wanted: str = request.path_params["voice_id"]
    for found in _found(request):
        if found.id == wanted:
            return _told(found)
    raise _unknown(wanted)


async def clone(request: Request, form: CartesiaClip) -> CartesiaVoice:
    """Make a voice of a recording."""
    plane: ControlPlane = request.app.state.control
    made = await plane.cloning.clone(
        await read_upload(form.clip),
        name=form.name,
        description=form.description or "",
        language=form.language or "",
        source="cartesia",
    )
    return _told(made.voice)


def _found(request: Request) -> list[Voice]:
    """Every voice once: a later one of the same id is of another backend."""
    state = request.app.state
    found: dict[str, Voice] = {}
    for voice, _ in every_voice(state.speech, state.catalogue):
        found.setdefault(voice.id, voice)
    return list(found.values())


def _position(ids: list[str], wanted: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        raise _unknown(wanted) from None


def _unknown(wanted: str) -> UnknownVoice:
    return UnknownVoice(f"there is no voice {wanted[:80]!r}; GET /voices lists all")


def _told(voice: Voice) -> CartesiaVoice:
    is_ours = voice.kind != "builtin"
    tag = voice.language or "en"
    return CartesiaVoice(
        id=voice.id,
        name=voice.display_name or voice.name,
        description=voice.description,
        language=tag.split("-")[0],
        locales=[Locale(locale=tag)],
        created_at=voice.created_at or _LONG_AGO,
        is_owner=is_ours,
        access="private" if is_ours else "public",
        visibility="owner" if is_ours else "all",
        is_public=not is_ours,
    )


def routes() -> list[BaseRoute]:
    def operation(*said: Any, **more: Any) -> BaseRoute:
        return VendorOperation("cartesia", *said, **more)

    return [
        operation("GET", "/voices", voices, {200: CartesiaVoices}, query=VoicesQuery, errors=[404]),
        operation(
            *("POST", "/voices/clone", clone, {200: CartesiaVoice}),
            form=CartesiaClip,
            errors=CLONING_ERRORS,
            max_body=MAX_UPLOAD,
        ),
        operation("GET", "/voices/{voice_id}", voice, {200: CartesiaVoice}, errors=[404]),
    ]
