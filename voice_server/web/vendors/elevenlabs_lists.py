"""ElevenLabs' voices and models: ``/v1/voices``, ``/v2/voices``, ``/v1/models``.

https://elevenlabs.io/docs/api-reference/voices
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from voice_server.control.plane import ControlPlane
from voice_server.core.errors import UnknownVoice
from voice_server.core.voices import Voice
from voice_server.web.operations import Upload
from voice_server.web.uploads import MAX_UPLOAD, read_upload
from voice_server.web.vendors.operation import Body, VendorOperation
from voice_server.web.voices import every_voice

_MODELS: Final = ("eleven_multilingual_v2", "eleven_turbo_v2_5", "eleven_flash_v2_5", "eleven_v3")


class VoicesQuery(Body):
    """The query of ``GET /v2/voices``."""

    page_size: Annotated[int, Field(ge=1, le=100)] = 10
    next_page_token: Annotated[str, Field(pattern=r"^\d{1,9}$")] | None = None
    search: str | None = None


class VoiceForm(Body):
    """The form of ``POST /v1/voices/add``: one recording or several of the same person."""

    name: str
    files: Upload | list[Upload]
    description: str | None = None


async def voices(request: Request) -> Response:
    """Every voice."""
    return JSONResponse({"voices": _voices(request)})


async def voices_page(request: Request, query: VoicesQuery) -> Response:
    """Voices page by page."""
    sought = (query.search or "").casefold()
    found = [voice for voice in _voices(request) if sought in f"{voice.values()}".casefold()]
    start = int(query.next_page_token or 0)
    end = start + query.page_size
    has_more = end < len(found)
    return JSONResponse(
        {
            "voices": found[start:end],
            "has_more": has_more,
            "total_count": len(found),
            "next_page_token": str(end) if has_more else None,
        }
    )


async def voice(request: Request) -> Response:
    """One voice."""
    voice_id: str = request.path_params["voice_id"]
    for found in _voices(request):
        if found["voice_id"] == voice_id:
            return JSONResponse(found)
    raise UnknownVoice(f"there is no voice {voice_id[:80]!r}; GET /v1/voices lists all")


async def add(request: Request, form: VoiceForm) -> Response:
    """Make a voice of recordings."""
    plane: ControlPlane = request.app.state.control
    first, *others = form.files if isinstance(form.files, list) else [form.files]
    made = await plane.cloning.clone(
        await read_upload(first),
        name=form.name,
        description=form.description or "",
        source="elevenlabs",
    )
    for other in others:
        sample, _, _ = await plane.cloning.sample(await read_upload(other))
        await plane.catalogue.add_sample(made.voice.id, sample)
    return JSONResponse({"voice_id": made.voice.id, "requires_verification": False})


async def delete(request: Request) -> Response:
    """Delete a voice that was made."""
    plane: ControlPlane = request.app.state.control
    await plane.catalogue.delete(request.path_params["voice_id"])
    return JSONResponse({"status": "ok"})


async def models(request: Request) -> Response:
    """ElevenLabs' model names, which mean the default backend, and the running backends."""
    service = request.app.state.speech
    return JSONResponse(
        [
            {
                "model_id": name,
                "name": name,
                "can_do_text_to_speech": True,
                "can_do_voice_conversion": False,
                "languages": [{"language_id": tag, "name": tag} for tag in _languages(pool)],
            }
            for name, pool in [
                *((name, service.pool(None)[1]) for name in _MODELS),
                *service.pools.items(),
            ]
        ]
    )


def _languages(pool: Any) -> list[str]:
    return list(pool.info.languages) if pool.info else []


def _voices(request: Request) -> list[dict[str, Any]]:
    state = request.app.state
    return [_listed(found) for found, _ in every_voice(state.speech, state.catalogue)]


def _listed(voice: Voice) -> dict[str, Any]:
    return {
        "voice_id": voice.id,
        "name": voice.display_name or voice.name,
        "category": "premade" if voice.kind == "builtin" else "cloned",
        "description": voice.description or None,
        "labels": {"language": voice.language} if voice.language else {},
        "samples": [],
        "preview_url": None,
        "settings": None,
        "available_for_tiers": [],
        "high_quality_base_model_ids": [],
    }


def routes() -> list[BaseRoute]:
    def operation(*said: Any, **more: Any) -> BaseRoute:
        return VendorOperation("elevenlabs", *said, **more)

    return [
        operation("GET", "/v1/voices", voices),
        operation("GET", "/v2/voices", voices_page, query=VoicesQuery),
        operation("POST", "/v1/voices/add", add, form=VoiceForm, max_body=MAX_UPLOAD),
        operation("GET", "/v1/voices/{voice_id}", voice),
        operation("DELETE", "/v1/voices/{voice_id}", delete),
        operation("GET", "/v1/models", models),
    ]
