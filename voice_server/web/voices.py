"""``GET /voices``: every voice there is, made or built in, and which backends speak it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.core.voices import Kind, Voice, can_speak, is_too_short, speaker_voices
from voice_server.speech.service import SpeechService
from voice_server.storage.catalogue import Catalogue
from voice_server.web.operations import Body, Operation


class VoiceQuery(Body):
    """Which voices to list."""

    backend: str | None = Field(default=None, description="Those that this backend speaks.")
    language: str | None = Field(
        default=None, description="Those of this language: `en` finds `en-GB` too."
    )
    kind: Kind | None = Field(default=None, description="Those of this kind.")
    search: str | None = Field(
        default=None, description="Those with this in their id, names, description or tags."
    )
    limit: Annotated[int, Field(ge=1, le=1000, description="Voices in one answer.")] = 1000
    offset: Annotated[int, Field(ge=0, description="Voices to leave out before them.")] = 0


class ListedVoice(BaseModel):
    """One voice."""

    id: str
    name: str
    display_name: str
    description: str
    kind: Kind
    language: str = Field(description="A BCP 47 tag, or nothing.")
    backends: list[str] = Field(description="The running backends that speak it.")
    tags: list[str]
    created_at: str
    updated_at: str


class DroppedProblem(BaseModel):
    """A file that should have been a voice."""

    file: str
    reason: str
    code: str


class VoiceList(BaseModel):
    """Voices that were made, newest first, then those that are built in."""

    voices: list[ListedVoice]
    total: int = Field(description="Voices that match, in this answer or not.")
    problems: list[DroppedProblem] = Field(
        description="Files in the samples folder that could not become a voice, and why."
    )


async def list_voices(request: Request, query: VoiceQuery) -> VoiceList:
    """List voices.

    A backend's built-in voices are there once one of its workers is warm.
    """
    service: SpeechService = request.app.state.speech
    catalogue: Catalogue = request.app.state.catalogue
    if query.backend:
        service.pool(query.backend)
    found = _found(service, catalogue, query)
    page = found[query.offset : query.offset + query.limit]
    return VoiceList(
        voices=[_listed(voice, able) for voice, able in page],
        total=len(found),
        problems=[
            DroppedProblem(
                file=PurePath(problem.path).name, reason=problem.reason, code=problem.code
            )
            for problem in catalogue.problems.values()
        ],
    )


Found = list[tuple[Voice, list[str]]]


def _found(service: SpeechService, catalogue: Catalogue, query: VoiceQuery) -> Found:
    """The voices that match, with the backends that speak them."""
    found = every_voice(service, catalogue)
    # One test after the other, and none that was not asked for: there may be many voices.
    if query.kind is not None:
        found = [entry for entry in found if entry[0].kind == query.kind]
    if query.backend:
        found = [entry for entry in found if query.backend in entry[1]]
    if query.language:
        wanted = f"{query.language.casefold()}-"
        found = [e for e in found if f"{e[0].language.casefold()}-".startswith(wanted)]
    if query.search:
        sought = query.search.casefold()
        found = [entry for entry in found if sought in _searched(entry[0])]
    return found


def every_voice(service: SpeechService, catalogue: Catalogue) -> Found:
    """Every voice that was made, newest first, then those built in; and which backends speak it."""
    infos = {name: pool.info for name, pool in service.pools.items() if pool.info is not None}
    # Which backends speak a voice depends on what the voice is made of, and some count its seconds.
    counting = [info for info in infos.values() if info.min_sample_seconds > 0]
    able: dict[tuple[bool, ...], list[str]] = {}
    found: Found = []
    for voice in catalogue.voices():
        made_of = (
            bool(voice.samples),
            bool(voice.design),
            *[is_too_short(info, voice.samples) for info in counting],
        )
        if made_of not in able:
            able[made_of] = [name for name, info in infos.items() if can_speak(info, voice)]
        found.append((voice, able[made_of]))
    for name, info in infos.items():
        found += [(voice, [name]) for voice in speaker_voices(name, info)]
    return found


def _searched(voice: Voice) -> str:
    parts = (voice.id, voice.name, voice.display_name, voice.description, *voice.tags)
    return "\n".join(parts).casefold()


def _listed(voice: Voice, backends: Sequence[str]) -> ListedVoice:
    return ListedVoice(
        id=voice.id,
        name=voice.name,
        display_name=voice.display_name or voice.name,
        description=voice.description,
        kind=voice.kind,
        language=voice.language,
        backends=list(backends),
        tags=list(voice.tags),
        created_at=voice.created_at,
        updated_at=voice.updated_at,
    )


def routes() -> list[BaseRoute]:
    return [
        Operation(
            *("GET", "/voices", list_voices),
            tag="voices",
            query=VoiceQuery,
            answers={200: VoiceList},
            errors=[404],
        )
    ]
