"""``POST /v1/audio/transcriptions``: what a recording says, by the whisper worker.

https://platform.openai.com/docs/api-reference/audio/createTranscription
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute

from voice_server.web.models import written_down
from voice_server.web.operations import Content, Upload
from voice_server.web.uploads import MAX_UPLOAD
from voice_server.web.vendors.operation import Body, VendorOperation


class TranscriptionForm(Body):
    """The form; a model's name is taken and means the one that is installed."""

    file: Upload
    model: str = "whisper-1"
    language: Annotated[str, Field(max_length=64)] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"


async def transcribe(request: Request, form: TranscriptionForm) -> Response:
    """Write down what is said in a recording."""
    has_words = form.response_format == "verbose_json"
    told, duration = await written_down(request, form.file, form.language, has_words=has_words)
    match form.response_format:
        case "text":
            return PlainTextResponse(f"{told.text}\n")
        case "srt":
            return PlainTextResponse("\n".join(_srt(told.segments)))
        case "vtt":
            return PlainTextResponse("\n".join(["WEBVTT\n", *_vtt(told.segments)]))
        case "verbose_json":
            return JSONResponse(
                {
                    "task": "transcribe",
                    "language": told.language,
                    "duration": round(duration, 3),
                    "text": told.text,
                    "segments": [{"id": n, **said} for n, said in enumerate(told.segments)],
                    "words": [word for said in told.segments for word in said.get("words") or ()],
                }
            )
        case _:
            return JSONResponse({"text": told.text})


def _srt(segments: Iterable[dict[str, Any]]) -> Iterable[str]:
    for number, said in enumerate(segments, 1):
        times = f"{_clock(said['start'], ',')} --> {_clock(said['end'], ',')}"
        yield f"{number}\n{times}\n{said['text'].strip()}\n"


def _vtt(segments: Iterable[dict[str, Any]]) -> Iterable[str]:
    for said in segments:
        times = f"{_clock(said['start'], '.')} --> {_clock(said['end'], '.')}"
        yield f"{times}\n{said['text'].strip()}\n"


def _clock(seconds: float, point: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def routes() -> list[BaseRoute]:
    text = Content(("application/json", "text/plain"), "What is said, in the form asked for")
    return [
        VendorOperation(
            *("openai", "POST", "/v1/audio/transcriptions", transcribe, {200: text}),
            form=TranscriptionForm,
            errors=[502, 503],
            max_body=MAX_UPLOAD,
        )
    ]
