"""The one place where errors become HTTP answers and close codes of WebSockets.

An answer's body is ``{"detail", "code", "retryable"}``, or what the client's vendor would say;
docs/protocol.md lists every code.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from voice_server.core.errors import UNEXPECTED, RequestError, SynthesisFailed, VoiceServerError
from voice_server.storage.atomic import full_disk_error
from voice_server.web.vendors.errors import refusal, request_id

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """What every refusal and failure looks like."""

    detail: str = Field(description="What went wrong and what to do, for people.")
    code: str = Field(description="The same for programs.")
    retryable: bool = Field(description="Whether asking again later can help.")


# Codes that backends give their refusals, where the fault is the client's or soon over.
_BACKEND_STATUS = {
    "bad_option": 400,
    "bad_sample": 400,
    "unsupported_language": 400,
    "out_of_memory": 503,
    "prompt_too_long": 400,
}
# Codes of RequestError, which has no class for each.
_REQUEST_CODES = frozenset(
    {"invalid_json", "bad_message", "binary_message", "no_text", "idle_timeout", "not_reading"}
    | {"too_many_contexts"}
)
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def answer(error: VoiceServerError, scope: Scope | None = None) -> JSONResponse:
    """The HTTP answer for an error, in the shape that the client of ``scope`` expects."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if scope is not None and (vendor := scope.get("state", {}).get("vendor")):
        status, body, numbered = refusal(vendor, error, request_id(scope))
        return JSONResponse(body, status, headers | numbered)
    problem = {"detail": str(error), "code": error.code, "retryable": error.retryable}
    return JSONResponse(problem, error.status, headers)


def error_of(message: Mapping[str, Any]) -> VoiceServerError:
    """The error that an ``error`` message of a turn stands for, with the status of its code."""
    code = message["code"]
    error: VoiceServerError
    if (cls := _classes().get(code)) is not None:
        error = cls(message["msg"])
    elif code in _REQUEST_CODES:
        error = RequestError(message["msg"], code=code)
    else:
        error = SynthesisFailed(message["msg"], code=code)
        error.status = _BACKEND_STATUS.get(code, error.status)
    error.retryable = message["retryable"]
    return error


async def close(send: Send, error: VoiceServerError) -> None:
    """Close an accepted WebSocket with the code of the error."""
    with suppress(OSError):  # the peer is gone
        await send({"type": "websocket.close", "code": error.close_code, "reason": error.code})


async def deny(scope: Scope, receive: Receive, send: Send, error: VoiceServerError) -> None:
    """Refuse a request, or a WebSocket before it is accepted."""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
    response = answer(error, scope)
    if error.status == 401:
        # A browser that opens a page asks for the key; a script's request must not make it ask.
        is_page = any(k == b"accept" and b"text/html" in v for k, v in scope["headers"])
        response.headers["WWW-Authenticate"] = 'Basic realm="key"' if is_page else "Bearer"
    await response(scope, receive, send)
    if scope["type"] == "websocket":
        # uvicorn logs an error when the application returns before the connection has gone: the
        # first message says that it was refused, the second that it is lost.
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await receive()
                await receive()


# -- handlers of the application -----------------------------------------------------------------


async def answer_error(connection: HTTPConnection, exc: Exception) -> Response | None:
    """A VoiceServerError that reached the top."""
    assert isinstance(exc, VoiceServerError)
    connection.app.state.speech.metrics.refused.labels(exc.code).inc()
    if isinstance(connection, WebSocket):
        with suppress(OSError):
            await connection.close(exc.close_code, exc.code)
        return None
    return answer(exc, connection.scope)


async def answer_http_error(request: Request, exc: Exception) -> Response:
    """What Starlette refuses by itself: no such path, no such method, no such form."""
    assert isinstance(exc, HTTPException)
    path = request.url.path[:200]
    headers = dict(exc.headers or {})
    detail = str(exc.detail)
    if exc.status_code == 404:
        detail = f"there is no {path} here; /docs lists what there is"
        if _is_socket(request):
            detail = f"{path} is a WebSocket: connect to it with ws:// or wss://"
    elif exc.status_code == 405:
        # Each route of a path knows its own methods alone.
        headers["Allow"] = allowed = ", ".join(sorted(_methods(request)))
        detail = f"{request.method} is not possible on {path}; use {allowed}"
    error = VoiceServerError(detail)
    error.code = _HTTP_CODES.get(exc.status_code, "bad_request")
    error.status = exc.status_code
    response = answer(error, request.scope)
    response.headers.update(headers)
    return response


async def answer_os_error(connection: HTTPConnection, exc: Exception) -> Response:
    """A disk that is full, met where nobody could expect it, such as in a large upload."""
    assert isinstance(exc, OSError)
    error = full_disk_error(exc, "what was sent")
    if error is None or isinstance(connection, WebSocket):
        raise exc
    return answer(error, connection.scope)


async def answer_unexpected(request: Request, exc: Exception) -> Response:
    """Something that nobody expected; Boundary logs it. What it says is not for the client."""
    error = VoiceServerError(UNEXPECTED)
    return answer(error, request.scope)


async def answer_nobody(request: Request, exc: Exception) -> None:
    """The client went away while it was still sending."""


class Boundary:
    """The outermost layer: what nobody expected is logged here, once, and goes no further.

    A body that has begun is left without its end, so that the client sees a broken transfer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:
            # The path alone: a key or a text may stand in the query.
            logger.exception("%s %.200r failed", scope.get("method", "WS"), scope["path"])
            if scope["type"] == "websocket":
                await close(send, VoiceServerError(""))


def _methods(request: Request) -> set[str]:
    """What every route of this path takes together."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.path_regex.match(request.url.path):
            found |= route.methods or set()
    return found


def _is_socket(request: Request) -> bool:
    """Whether a WebSocket has this path; the route that takes any path is none."""
    return any(
        isinstance(route, WebSocketRoute)
        and not route.path.startswith("/{")
        and route.path_regex.match(request.url.path)
        for route in request.app.routes
    )


def _classes() -> dict[str, type[VoiceServerError]]:
    """Every class of the tree by its code."""
    found: dict[str, type[VoiceServerError]] = {}
    waiting: list[type[VoiceServerError]] = [VoiceServerError]
    while waiting:
        cls = waiting.pop()
        found.setdefault(cls.code, cls)
        waiting.extend(cls.__subclasses__())
    return found
