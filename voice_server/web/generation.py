"""``/generate`` and ``/history``: speech that is kept, found again, and downloaded."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_server.audio.encode import encode_whole
from voice_server.control.plane import ControlPlane
from voice_server.core.errors import UNEXPECTED, NotFound, VoiceServerError
from voice_server.storage.history import Filters, Generation
from voice_server.storage.timestamps import time_from
from voice_server.web.language import LanguageTag
from voice_server.web.operations import Body, Content, Operation
from voice_server.web.profiles import Deleted
from voice_server.web.rendering import kept_sound, render

logger = logging.getLogger(__name__)

MAX_BATCH = 200
_KEPT_BATCHES = 100


class NewGeneration(Body):
    """A text to be spoken and kept."""

    profile_id: str = Field(max_length=200, description="A voice: its id, or its name.")
    text: str = Field(description="What to say.")
    language: LanguageTag | None = None
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="The same seed gives the same sound."
    )
    backend: str | None = Field(default=None, max_length=200)
    instructions: str | None = Field(default=None, max_length=4_000)


class Spoken(BaseModel):
    """An entry of the history."""

    id: str
    profile_id: str
    text: str
    language: str
    audio_path: str
    audio_url: str
    duration: float = Field(description="Seconds.")
    seed: int | None
    backend: str
    created_at: str


Time = Annotated[
    str,
    Field(max_length=40, json_schema_extra={"format": "date-time"}),
    AfterValidator(time_from),
]


class HistoryQuery(BaseModel):
    """Which entries."""

    profile_id: str | None = None
    search: str | None = Field(default=None, max_length=1_000, description="In the text.")
    backend: str | None = None
    since: Time | None = Field(default=None, description="Made at this time or later.")
    until: Time | None = Field(default=None, description="Made before this time.")
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    offset: Annotated[int, Field(ge=0, lt=2**63)] = 0


class HistoryPage(BaseModel):
    """Entries, newest first."""

    items: list[Spoken]
    total: int = Field(description="Entries that match, in this answer or not.")
    limit: int
    offset: int


class HistoryStats(BaseModel):
    """The history in three figures."""

    total_generations: int
    total_duration_seconds: float
    generations_by_profile: dict[str, int]


class NewBatch(Body):
    """Texts to be spoken one after another."""

    items: list[NewGeneration] = Field(min_length=1, max_length=MAX_BATCH)


class Failure(BaseModel):
    """An item of a batch that could not be spoken."""

    index: int
    detail: str
    code: str


class BatchState(BaseModel):
    """How far a batch is. WS /generate/batch/{id}/ws tells each step."""

    batch_id: str
    status: Literal["running", "done"]
    total: int
    done: int
    generations: list[Spoken]
    failures: list[Failure]


@dataclass(eq=False)
class _Batch:
    state: BatchState
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


class Batches:
    """The batches of one process; the last hundred can still be asked for."""

    def __init__(self) -> None:
        self._batches: OrderedDict[str, _Batch] = OrderedDict()

    def start(self, connection: HTTPConnection, items: list[NewGeneration]) -> BatchState:
        """Begin to speak the items, in a task of its own."""
        state = BatchState(
            batch_id=secrets.token_hex(8),
            status="running",
            total=len(items),
            done=0,
            generations=[],
            failures=[],
        )
        batch = _Batch(state)
        batch.task = asyncio.create_task(self._run(connection, batch, items))
        self._batches[state.batch_id] = batch
        done = [name for name, b in self._batches.items() if b.state.status == "done"]
        for name in done[: max(0, len(self._batches) - _KEPT_BATCHES)]:
            del self._batches[name]
        return state

    def get(self, batch_id: str) -> _Batch:
        """Raises NotFound."""
        try:
            return self._batches[batch_id]
        except KeyError:
            raise NotFound(f"Batch {batch_id[:80]!r} not found", code="unknown_batch") from None

    async def _run(
        self, connection: HTTPConnection, batch: _Batch, items: list[NewGeneration]
    ) -> None:
        for index, item in enumerate(items):
            spoken, failure = None, None
            try:
                spoken = await _generated(connection, item)
            except VoiceServerError as exc:
                failure = Failure(index=index, detail=str(exc), code=exc.code)
            except Exception:
                logger.exception("item %d of batch %s failed", index, batch.state.batch_id)
                failure = Failure(index=index, detail=UNEXPECTED, code=VoiceServerError.code)
            async with batch.changed:
                if spoken is not None:
                    batch.state.generations.append(spoken)
                if failure is not None:
                    batch.state.failures.append(failure)
                batch.state.done += 1
                if batch.state.done == batch.state.total:
                    batch.state.status = "done"
                batch.changed.notify_all()


async def generate(request: Request, body: NewGeneration) -> Spoken:
    """Speak a text with a profile, and keep it in the history."""
    return await _generated(request, body)


async def generate_batch(request: Request, body: NewBatch) -> BatchState:
    """Speak several texts; answers at once. One that fails does not stop the others."""
    return _batches(request).start(request, body.items)


async def batch(request: Request) -> BatchState:
    """How far a batch is."""
    return _batches(request).get(request.path_params["batch_id"]).state


async def watch_batch(socket: WebSocket) -> None:
    """Tell each step of a batch: ``progress`` messages, then ``batch_complete``."""
    await socket.accept()
    try:
        watched = socket.app.state.batches.get(socket.path_params["batch_id"])
    except NotFound as exc:
        await socket.send_json({"type": "error", "msg": str(exc), "code": exc.code})
        await socket.close(exc.close_code, exc.code)
        return
    told = -1
    try:
        while True:
            async with watched.changed:
                while watched.state.done == told:
                    await watched.changed.wait()
                state = watched.state.model_copy(deep=True)
            told = state.done
            await socket.send_json({"type": "progress", "data": state.model_dump()})
            if state.status == "done":
                await socket.send_json({"type": "batch_complete", "data": state.model_dump()})
                await socket.close()
                return
    except (WebSocketDisconnect, OSError):
        return


async def history(request: Request, query: HistoryQuery) -> HistoryPage:
    """List what was generated, newest first."""
    filters = Filters(query.profile_id, query.search, query.backend, query.since, query.until)
    found, total = await _plane(request).history.find(filters, query.limit, query.offset)
    items = [_spoken(generation) for generation in found]
    return HistoryPage(items=items, total=total, limit=query.limit, offset=query.offset)


async def stats(request: Request) -> HistoryStats:
    """Count what was generated."""
    total, seconds, by_voice = await _plane(request).history.stats()
    return HistoryStats(
        total_generations=total,
        total_duration_seconds=round(seconds, 3),
        generations_by_profile=by_voice,
    )


async def entry(request: Request) -> Spoken:
    """One entry."""
    return _spoken(await _found(request))


async def delete(request: Request) -> Deleted:
    """Delete an entry and its sound."""
    generation_id = request.path_params["generation_id"]
    await _plane(request).history.delete(generation_id)
    return Deleted(message="Generation deleted", id=generation_id)


async def audio(request: Request) -> Response:
    """The sound of an entry. Ranges can be asked for."""
    generation = await _found(request)
    return kept_sound(generation.path, filename=f"{generation.id}.wav")


async def _generated(connection: HTTPConnection, asked: NewGeneration) -> Spoken:
    plane: ControlPlane = connection.app.state.control
    voice = plane.catalogue.find(asked.profile_id)
    rendered = await render(
        connection,
        asked.text,
        voice.id,
        backend=asked.backend,
        language=asked.language or voice.language or None,
        instructions=asked.instructions,
        seed=asked.seed,
    )
    generation = await plane.history.add(
        encode_whole(rendered.pcm),
        voice_id=voice.id,
        text=asked.text,
        language=asked.language or voice.language,
        backend=rendered.backend,
        duration=round(rendered.duration, 3),
        seed=asked.seed,
    )
    return _spoken(generation)


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.control
    return plane


def _batches(request: Request) -> Batches:
    batches: Batches = request.app.state.batches
    return batches


async def _found(request: Request) -> Generation:
    return await _plane(request).history.get(request.path_params["generation_id"])


def _spoken(generation: Generation) -> Spoken:
    values: dict[str, Any] = {
        name: getattr(generation, name)
        for name in ("id", "text", "language", "duration", "seed", "backend", "created_at")
    }
    return Spoken(
        profile_id=generation.voice_id,
        audio_path=str(generation.path),
        audio_url=f"/audio/{generation.id}",
        **values,
    )


def routes() -> list[BaseRoute]:
    tag = "history"
    wav = Content(("audio/wav",), "The sound")
    speaking = [404, 409, 502, 503, 507]
    one = "/history/{generation_id}"
    return [
        Operation(
            *("POST", "/generate", generate),
            tag=tag,
            body=NewGeneration,
            answers={200: Spoken},
            errors=speaking,
        ),
        Operation(
            *("POST", "/generate/batch", generate_batch),
            tag=tag,
            body=NewBatch,
            answers={202: BatchState},
            max_body=4 << 20,
        ),
        Operation(
            *("GET", "/generate/batch/{batch_id}", batch),
            tag=tag,
            answers={200: BatchState},
            errors=[404],
        ),
        WebSocketRoute("/generate/batch/{batch_id}/ws", watch_batch),
        Operation(
            *("GET", "/history", history), tag=tag, query=HistoryQuery, answers={200: HistoryPage}
        ),
        Operation("GET", "/history/stats", stats, tag=tag, answers={200: HistoryStats}),
        Operation("GET", one, entry, tag=tag, answers={200: Spoken}, errors=[404]),
        Operation("DELETE", one, delete, tag=tag, answers={200: Deleted}, errors=[404]),
        Operation(
            *("GET", "/audio/{generation_id}", audio),
            tag=tag,
            answers={200: wav},
            errors=[404, 409],
        ),
    ]
