"""``/``, ``/health``, ``/ready`` and ``/metrics``: what people and machines ask a server first."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from voice_server import __version__
from voice_server.core import wire
from voice_server.speech.service import SpeechService
from voice_server.web.errors import Problem
from voice_server.web.gpu import memory_used_mb
from voice_server.web.operations import Content, Operation
from voice_server.workers.pool import WorkerPool


class Root(BaseModel):
    """What this server is."""

    name: str
    version: str
    protocol: int = Field(description="Version of the protocol of WS /stream-tokens.")
    default_backend: str
    backends: list[str]
    links: dict[str, str]


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"
    ok: Literal[True] = True
    model_loaded: bool = Field(description="Whether a worker of any backend is warm.")
    gpu_available: bool
    vram_used_mb: float = Field(description="On all cards; 0 without one.")


class BackendReadiness(BaseModel):
    """How far one backend is."""

    ready: bool
    workers: int = Field(description="Workers that are warm.")
    workers_wanted: int
    slots: int
    slots_free: int
    queue: int = Field(description="Jobs that wait for a slot.")
    reason: str = Field(description="Why it is not ready, or what went wrong last; else empty.")


class Readiness(BaseModel):
    """The default backend takes turns; others may still be on their way."""

    status: Literal["ready"] = "ready"
    backends: dict[str, BackendReadiness]


class NotYet(Problem):
    """Nothing is spoken now."""

    status: Literal["starting", "failing", "draining"]
    backends: dict[str, BackendReadiness]


async def root(request: Request) -> Root:
    """What this server is, and where to go on."""
    service: SpeechService = request.app.state.speech
    return Root(
        name="Voice Server",
        version=__version__,
        protocol=wire.PROTOCOL,
        default_backend=next(iter(service.pools)),
        backends=list(service.pools),
        links={
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": "/health",
            "ready": "/ready",
            "metrics": "/metrics",
            "voices": "/voices",
            "backends": "/backends",
            "tts": "/tts",
            "stream": "/stream",
            "stream_tokens": "/stream-tokens",
        },
    )


async def health(request: Request) -> Health:
    """Whether the server is alive.

    Always 200 while it answers. Whether it can speak, /ready says. Needs no key.
    """
    service: SpeechService = request.app.state.speech
    used = await memory_used_mb()
    return Health(
        model_loaded=any(pool.is_ready for pool in service.pools.values()),
        gpu_available=used is not None,
        vram_used_mb=used or 0.0,
    )


async def ready(request: Request) -> Response:
    """Whether the server can speak now: 200, or 503 with the reason of each backend.

    200 as soon as one worker of the default backend is warm, and while its model is unloaded: the
    next turn loads it. Needs no key; what workers printed is told to those who have it.
    """
    service: SpeechService = request.app.state.speech
    is_trusted = request.scope["state"].get("is_known", True)
    backends = {
        name: _readiness(name, pool, is_trusted=is_trusted) for name, pool in service.pools.items()
    }
    first, default = next(iter(backends.items()))
    if service.can_speak and not service.is_draining:
        return JSONResponse(Readiness(backends=backends).model_dump())
    if service.is_draining:
        code, status, detail = "draining", "draining", "the server is going away"
    else:
        is_failing = service.pools[first].snapshot()["breaker"] == "open"
        code, status = "not_ready", "failing" if is_failing else "starting"
        detail = default.reason
    answer = {
        "detail": detail,
        "code": code,
        "retryable": True,
        "status": status,
        "backends": {name: state.model_dump() for name, state in backends.items()},
    }
    return JSONResponse(answer, 503, {"Retry-After": "1"})


async def metrics(request: Request) -> Response:
    """Counters and gauges as Prometheus reads them."""
    service: SpeechService = request.app.state.speech
    headers = {"Content-Type": CONTENT_TYPE_LATEST}
    return Response(generate_latest(service.metrics.registry), headers=headers)


def _readiness(name: str, pool: WorkerPool, *, is_trusted: bool) -> BackendReadiness:
    snapshot = pool.snapshot()
    states = [worker["state"] for worker in snapshot["workers"]]
    if not pool.is_started:
        reason = f"{name}: unloaded; the next turn loads it"
    else:
        loading = "" if pool.is_ready else f"{name}: its workers are still loading"
        reason = pool.last_error or loading
    # Workers may print what people say, and this door has no key.
    shown = reason if is_trusted else reason.partition("; it printed last: ")[0]
    return BackendReadiness(
        ready=pool.is_ready,
        workers=sum(state in ("ready", "spare") for state in states),
        workers_wanted=pool.size,
        slots=snapshot["slots"],
        slots_free=snapshot["free_slots"],
        queue=snapshot["waiting"],
        reason=shown,
    )


def routes() -> list[BaseRoute]:
    text = Content((CONTENT_TYPE_LATEST.partition(";")[0],), "Metrics as text")
    return [
        Operation("GET", "/", root, tag="server", answers={200: Root}),
        Operation("GET", "/health", health, tag="server", answers={200: Health}, is_open=True),
        Operation(
            *("GET", "/ready", ready),
            tag="server",
            answers={200: Readiness, 503: NotYet},
            is_open=True,
        ),
        Operation("GET", "/metrics", metrics, tag="server", answers={200: text}),
    ]
