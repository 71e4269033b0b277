"""A refusal in the shape that a vendor's client turns into an exception of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from starlette.types import Scope

from voice_server.core.errors import VoiceServerError
from voice_server.web.vendors.problems import (
    CartesiaProblem,
    DeepgramProblem,
    ElevenLabsDetail,
    ElevenLabsField,
    ElevenLabsInvalid,
    ElevenLabsProblem,
    OpenAIError,
    OpenAIProblem,
    PlainProblem,
)

# The header under which each vendor's clients find the number of a request.
ID_HEADERS: Final[Mapping[str, str]] = {
    "openai": "x-request-id",
    "elevenlabs": "request-id",
    "deepgram": "dg-request-id",
    "cartesia": "x-request-id",
    "telephony": "x-request-id",
}
# What OpenAI and ElevenLabs call some of our codes; which field OpenAI's clients are told of.
_CODES: Final = {"unknown_voice": "voice_not_found", "unknown_backend": "model_not_found"}
_PARAMS: Final = {"unknown_voice": "voice", "unknown_backend": "model"}
# Of vendors that know no 422, or no 404 for a model.
_STATUS: Final = {"openai": {422: 400}, "deepgram": {404: 400, 422: 400}, "cartesia": {422: 400}}


def request_id(scope: Scope) -> str:
    """The number of this request: one for its answer, its refusal and its log."""
    state: dict[str, Any] = scope.setdefault("state", {})
    found: str = state.setdefault("request_id", f"req_{secrets.token_hex(12)}")
    return found


def refusal(
    vendor: str, error: VoiceServerError, number: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of an answer to a client of ``vendor``; ``number``: request_id."""
    status = refusal_status(vendor, error.status)
    problem = _PROBLEMS.get(vendor, _plain)(error, status, number)
    headers = {ID_HEADERS.get(vendor, "x-request-id"): number}
    return status, problem.model_dump(mode="json"), headers


def refusal_status(vendor: str, status: int) -> int:
    """The status with which ``vendor`` would answer an error of ``status``."""
    return _STATUS.get(vendor, {}).get(status, status)


def refusal_model(vendor: str, status: int) -> type[BaseModel]:
    """The body of such an answer."""
    if vendor == "elevenlabs" and status == 422:
        return ElevenLabsInvalid
    return _MODELS.get(vendor, PlainProblem)


def _openai(error: VoiceServerError, status: int, number: str) -> OpenAIProblem:
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    code = {401: "invalid_api_key"}.get(status) or _CODES.get(error.code, error.code)
    param = _field(error) or _PARAMS.get(error.code)
    told = OpenAIError(message=str(error), type=kind, param=param, code=code)
    return OpenAIProblem(error=told)


def _elevenlabs(
    error: VoiceServerError, status: int, number: str
) -> ElevenLabsProblem | ElevenLabsInvalid:
    if status == 422:
        loc = ["body", *filter(None, (_field(error) or "").split("."))]
        field = ElevenLabsField(loc=loc, msg=str(error), type="value_error")
        return ElevenLabsInvalid(detail=[field])
    code = {401: "invalid_api_key", 429: "too_many_concurrent_requests", 503: "system_busy"}
    said = code.get(status) or _CODES.get(error.code, error.code)
    detail = ElevenLabsDetail(status=said, message=str(error), request_id=number)
    return ElevenLabsProblem(detail=detail)


def _deepgram(error: VoiceServerError, status: int, number: str) -> DeepgramProblem:
    code = {401: "INVALID_AUTH", 429: "TOO_MANY_REQUESTS"}.get(status, error.code.upper())
    return DeepgramProblem(err_code=code, err_msg=str(error), request_id=number)


def _cartesia(error: VoiceServerError, status: int, number: str) -> CartesiaProblem:
    title = error.code.replace("_", " ").capitalize()
    return CartesiaProblem(
        error_code=error.code, title=title, message=str(error), request_id=number
    )


def _plain(error: VoiceServerError, status: int, number: str) -> PlainProblem:
    return PlainProblem(error=str(error), code=error.code)


def _field(error: VoiceServerError) -> str | None:
    """The field that ``field › what was expected`` is about."""
    name, separator, _ = str(error).partition(" › ")
    return name if separator else None


_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "openai": OpenAIProblem,
    "elevenlabs": ElevenLabsProblem,
    "deepgram": DeepgramProblem,
    "cartesia": CartesiaProblem,
}
_PROBLEMS: Final[Mapping[str, Callable[[VoiceServerError, int, str], BaseModel]]] = {
    "openai": _openai,
    "elevenlabs": _elevenlabs,
    "deepgram": _deepgram,
    "cartesia": _cartesia,
    "telephony": _plain,
}
