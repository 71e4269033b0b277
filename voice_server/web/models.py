"""``/models`` and ``/transcribe``: which models are in memory, and what a recording says."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.control.models import Models, ModelState
from voice_server.control.samples import plain_wav
from voice_server.control.transcription import Transcriber, Transcript
from voice_server.core.errors import SynthesisFailed
from voice_server.speech.service import SpeechService
from voice_server.web.errors import error_of
from voice_server.web.gpu import memory_used_mb
from voice_server.web.language import LanguageTag
from voice_server.web.operations import Body, Operation, Upload
from voice_server.web.uploads import MAX_UPLOAD, read_upload


class Model(BaseModel):
    """The model of a backend."""

    backend: str
    state: Literal["loaded", "loading", "unloading", "unloaded", "failed"]
    model: str
    workers: int
    device: str
    memory_mb: float = Field(description="Of its processes together.")
    turns: int = Field(description="Turns that it speaks now.")
    reason: str = Field(description="What went wrong last, or nothing.")


class ModelList(BaseModel):
    """The models, the default one first."""

    models: list[Model]
    gpu_available: bool
    vram_used_mb: float


class LoadQuery(BaseModel):
    """Which model."""

    model_size: str | None = Field(
        default=None, max_length=20, description="Such as `1.7B`, for backends with several."
    )
    backend: str | None = Field(default=None, description="The default one, if left out.")


class UnloadQuery(BaseModel):
    """Which model."""

    backend: str | None = Field(default=None, description="All of them, if left out.")


class Loaded(BaseModel):
    """It was done."""

    message: str
    models: list[Model]


class TranscribeForm(Body):
    """A recording."""

    file: Upload
    language: LanguageTag | None = Field(default=None, description="Detected when left out.")
    verbose: bool = Field(default=False, description="Tell segments and words with their times.")


class TranscribeQuery(BaseModel):
    """The same as in the form."""

    verbose: bool | None = None


class Transcribed(BaseModel):
    """What is said."""

    text: str
    duration: float = Field(description="Seconds.")
    language: str
    segments: list[dict[str, Any]] | None = Field(
        default=None, description="`start`, `end`, `text` and `words`, with `verbose`."
    )


async def list_models(request: Request) -> ModelList:
    """List the models, whether they are loaded, and what they hold."""
    used = await memory_used_mb()
    return ModelList(
        models=[_model(state) for state in _models(request).states()],
        gpu_available=used is not None,
        vram_used_mb=used or 0.0,
    )


async def load(request: Request, query: LoadQuery) -> Loaded:
    """Load a model. Answers when it is warm."""
    service: SpeechService = request.app.state.speech
    name, _ = service.pool(query.backend)
    state = await _models(request).load(name, query.model_size or None)
    return Loaded(message=f"{name} is loaded", models=[_model(state)])


async def unload(request: Request, query: UnloadQuery) -> Loaded:
    """Unload models: their turns finish, then their processes end. The next turn loads again."""
    service: SpeechService = request.app.state.speech
    names = [service.pool(query.backend)[0]] if query.backend else list(service.pools)
    states = await asyncio.gather(*(_models(request).unload(name) for name in names))
    return Loaded(
        message=f"{', '.join(names)} unloaded", models=[_model(state) for state in states]
    )


async def transcribe(request: Request, query: TranscribeQuery, form: TranscribeForm) -> Transcribed:
    """Write down what is said in a recording, audio or video."""
    verbose = form.verbose if query.verbose is None else query.verbose
    told, duration = await written_down(request, form.file, form.language, has_words=verbose)
    return Transcribed(
        text=told.text,
        duration=round(duration, 3),
        language=told.language,
        segments=told.segments if verbose else None,
    )


async def written_down(
    request: Request, file: UploadFile, language: str | None, *, has_words: bool
) -> tuple[Transcript, float]:
    """What is said in an uploaded recording, and its seconds. Raises VoiceServerError."""
    transcriber: Transcriber = request.app.state.transcriber
    wav, duration = await asyncio.to_thread(plain_wav, await read_upload(file))
    try:
        return await transcriber.transcribe(wav, language, has_words=has_words), duration
    except SynthesisFailed as exc:
        # Some of what workers refuse is the client's fault.
        told_why = {"msg": str(exc), "code": exc.code, "retryable": exc.retryable}
        raise error_of(told_why) from None


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


def _model(state: ModelState) -> Model:
    return Model(**{name: getattr(state, name) for name in ModelState.__slots__})


def routes() -> list[BaseRoute]:
    tag = "models"
    return [
        Operation("GET", "/models", list_models, tag=tag, answers={200: ModelList}),
        Operation(
            *("POST", "/models/load", load),
            tag=tag,
            query=LoadQuery,
            answers={200: Loaded},
            errors=[400, 404, 502, 503],
        ),
        Operation(
            *("POST", "/models/unload", unload),
            tag=tag,
            query=UnloadQuery,
            answers={200: Loaded},
            errors=[404, 503],
        ),
        Operation(
            *("POST", "/transcribe", transcribe),
            tag="transcription",
            query=TranscribeQuery,
            form=TranscribeForm,
            answers={200: Transcribed},
            errors=[502, 503],
            max_body=MAX_UPLOAD,
        ),
    ]
