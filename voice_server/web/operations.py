"""An HTTP operation: what it takes and answers, said once, for the check and for the document.

A door is a file with ``routes()``, a list of these::

    Operation("POST", "/tts", speak, tag="speech", body=SpeechRequest, answers={200: SOUND})

``speak(request, body)`` is called with what was checked, and returns a Response, or a model that
becomes JSON under the first of ``answers``. What it raises, web/errors.py answers.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive

from voice_server.core.errors import InvalidRequest, RequestError, TooLarge
from voice_server.core.expectations import expectation, schema_at, suggest
from voice_server.web.forms import fields, read_form

MAX_BODY = 1 << 20
FORM_ROOM = 1 << 20
"""Bytes that a form may have beside its file: its other fields, and its own punctuation."""

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[..., Awaitable[Response | BaseModel]]

Upload = Annotated[
    UploadFile,
    WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"}),
]
"""A file in the model of a ``form``."""


class Body(BaseModel):
    """Base of request bodies: a field that nobody knows is a mistake, and numbers are finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


@dataclass(frozen=True)
class Content:
    """An answer that is not JSON of a model: its media types, and what it is."""

    media_types: tuple[str, ...]
    description: str


class Operation(Route):
    """One operation, which /openapi.json describes.

    ``errors``: statuses it answers beside those that follow from ``body``, ``form``, ``query``.

    ``max_body``: bytes, or what tells them from the request; a longer body is answered 413.
    ``too_large``: what is said of the file of a form that is longer, given its bytes at most.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        tag: str,
        answers: Mapping[int, type[BaseModel] | Content],
        body: type[BaseModel] | None = None,
        form: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        errors: Sequence[int] = (),
        max_body: int | Callable[[Request], int] = MAX_BODY,
        too_large: Callable[[int], TooLarge] | None = None,
        is_open: bool = False,
    ) -> None:
        super().__init__(path, self._serve, methods=[method], name=handler.__name__)
        self.method = method
        self.handler = handler
        self.tag = tag
        self.answers = answers
        self.body, self.form, self.query = body, form, query
        self.errors = tuple(errors)
        self.is_open = is_open
        self._max_body = max_body
        self._too_large = too_large or file_too_large

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or self.name).strip().partition("\n")[0]

    @property
    def description(self) -> str:
        lines = (self.handler.__doc__ or "").strip().partition("\n")[2].split("\n")
        return "\n".join(line.strip() for line in lines).strip()

    @property
    def described_path(self) -> str:
        """Where whoever reads the document finds it."""
        return self.path

    @property
    def operation_id(self) -> str:
        return f"{self.handler.__module__.rpartition('.')[2]}_{self.name}"

    def refused(self, status: int) -> tuple[int, type[BaseModel] | None]:
        """How an error of ``status`` is answered: its status and body, None for the usual one."""
        return status, None

    async def _serve(self, request: Request) -> Response:
        checked: list[BaseModel] = []
        if self.query is not None:
            checked.append(check(self.query, dict(request.query_params)))
        if self.body is not None or self.form is not None:
            limit = self._max_body if isinstance(self._max_body, int) else self._max_body(request)
            of_file = self._too_large if self.form is not None and limit > FORM_ROOM else None
            limited = Request(request.scope, _limited(request.receive, limit, of_file))
            if self.body is not None:
                checked.append(check_json(self.body, await limited.body()))
            if self.form is not None:
                form = await read_form(limited)
                try:
                    checked.append(check(self.form, fields(form)))
                    return self._response(await self.handler(request, *checked))
                finally:
                    await form.close()
        return self._response(await self.handler(request, *checked))

    def _response(self, answer: Response | BaseModel) -> Response:
        if isinstance(answer, Response):
            return answer
        body = answer.model_dump_json().encode()
        return Response(body, next(iter(self.answers)), media_type="application/json")


def check(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Values of a query or form as the model. Raises InvalidRequest, naming each wrong one."""
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise InvalidRequest(_explain(exc, model)) from None


def check_json(model: type[Model], body: bytes) -> Model:
    """A JSON body as the model. Raises RequestError (``invalid_json``) or InvalidRequest."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            reason = first["ctx"]["error"]
            raise RequestError(
                f"the body is not JSON ({reason}); send an object as application/json",
                code="invalid_json",
            ) from None
        raise InvalidRequest(_explain(exc, model)) from None


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """``field › what was expected`` for each mistake."""
    root = model.model_json_schema()
    said = [_explain_one(item, root) for item in error.errors(include_url=False)[:10]]
    return "; ".join(dict.fromkeys(said))


def _explain_one(item: ErrorDetails, root: Mapping[str, Any]) -> str:
    loc = [str(part)[:80] for part in item["loc"]]
    match item["type"]:
        case "extra_forbidden":
            known = schema_at(root, loc[:-1]).get("properties", {})
            problem = f"unknown field{suggest(loc[-1], known)}"
        case "missing":
            problem = "this field is missing"
        case "value_error":
            problem = str(item["ctx"]["error"])
        case "is_instance_of" if isinstance(item["input"], list):
            problem = f"expected one file, got {len(item['input'])}"
        case "is_instance_of":
            problem = f"expected a file, got {_shown(item)}"
        case "finite_number":
            problem = "expected a finite number"
        case "string_too_long":
            problem = f"expected at most {item['ctx']['max_length']} characters"
        case _:
            problem = f"expected {expectation(root, schema_at(root, loc))}, got {_shown(item)}"
    return " › ".join([".".join(loc), problem]) if loc else problem


def _shown(item: ErrorDetails) -> str:
    value = item["input"]
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return "something else"
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def file_too_large(limit: int) -> TooLarge:
    """What is said of a file of more than ``limit`` bytes."""
    return TooLarge(
        f"File too large: the maximum is {limit // 2**20} MB. Compress or trim the audio",
        code="file_too_large",
    )


def _limited(receive: Receive, limit: int, of_file: Callable[[int], TooLarge] | None) -> Receive:
    """``receive``, until the body is longer than ``limit`` bytes. Raises TooLarge then."""
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            if of_file is not None:
                raise of_file(limit - FORM_ROOM)
            raise TooLarge(f"the body has more than {limit} bytes, which is the limit here")
        return message

    return receive_some
