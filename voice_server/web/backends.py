"""``/backends``: what the running backends can do, and replacing their workers."""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.speech.service import SpeechService
from voice_server.web.operations import Operation
from voice_worker.backend import BackendInfo


class Abilities(BaseModel):
    """What a backend has said of itself."""

    sample_rate: int = Field(description="Hertz at which its model speaks; frames are at 24000.")
    languages: list[str]
    default_voice: str | None
    voices: int = Field(description="Built-in voices.")
    clones: bool = Field(description="Speaks with the voice of a recording.")
    designs: bool = Field(description="Makes a voice of a description.")
    instructs: bool = Field(description="Takes `instructions`.")
    tags: list[str] = Field(description="Sounds it makes where `[tag]` stands in the text.")
    dialogue: bool = Field(description="Goes on in another voice where `[name]` stands.")
    options: list[str] = Field(description="Names that `opts` may hold.")
    word_timing: bool = Field(description="Tells the exact time of each word.")
    streams_text: bool = Field(description="Begins to speak before a sentence is complete.")
    slots: int = Field(description="Turns or segments that one worker speaks at once.")
    device: str


class Backend(BaseModel):
    """A running backend. ``info`` is null until its first worker was warm."""

    name: str
    default: bool
    ready: bool
    workers: int
    aliases: dict[str, str]
    info: Abilities | None


class BackendList(BaseModel):
    """The running backends, the default one first."""

    backends: list[Backend]


class Restarted(BaseModel):
    """Its workers are new."""

    backend: str
    workers: int


async def list_backends(request: Request) -> BackendList:
    """List the running backends and what they can do."""
    service: SpeechService = request.app.state.speech
    return BackendList(
        backends=[
            Backend(
                name=name,
                default=index == 0,
                ready=pool.is_ready,
                workers=pool.size,
                aliases=service.config.backend(name).aliases,
                info=None if pool.info is None else _abilities(pool.info),
            )
            for index, (name, pool) in enumerate(service.pools.items())
        ]
    )


async def restart(request: Request) -> Restarted:
    """Replace the workers of a backend one by one.

    Each new one is warm before an old one retires, so that no listener notices. Answers when all
    are replaced.
    """
    service: SpeechService = request.app.state.speech
    name, pool = service.pool(request.path_params["name"])
    await pool.restart()
    return Restarted(backend=name, workers=pool.size)


def _abilities(info: BackendInfo) -> Abilities:
    return Abilities(
        sample_rate=info.sample_rate,
        languages=list(info.languages),
        default_voice=info.default_speaker,
        voices=len(info.speakers),
        clones=info.clones,
        designs=info.designs,
        instructs=info.instructs,
        tags=list(info.tags),
        dialogue=info.dialogue,
        options=list(info.options),
        word_timing=info.word_timing,
        streams_text=info.streams_text,
        slots=info.slots,
        device=info.device,
    )


def routes() -> list[BaseRoute]:
    return [
        Operation("GET", "/backends", list_backends, tag="server", answers={200: BackendList}),
        Operation(
            *("POST", "/backends/{name}/restart", restart),
            tag="server",
            answers={200: Restarted},
            errors=[404, 502],
        ),
    ]
