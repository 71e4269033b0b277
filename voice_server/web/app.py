"""Builds the ASGI application from a configuration. Nothing happens at import.

    Boundary ─▶ CORS, if origins are allowed ─▶ Mount ─▶ Gate ─▶ router ─▶ a door

A door is a file with ``routes()``, named in ``DOORS``. What they share hangs on ``app.state``:
``config``, ``speech``, ``catalogue``, ``control``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voice_server.audio.formats import sound_format
from voice_server.config import Config
from voice_server.core.errors import NotFound, VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.storage.keyring import Keyring
from voice_server.storage.ownership import owned
from voice_server.web import (
    backends,
    control,
    errors,
    health,
    openapi,
    speech,
    stream_tokens,
    voices,
)
from voice_server.web.auth import Gate
from voice_server.web.sound import codec
from voice_server.web.vendors import doors as vendors
from voice_server.web.vendors.mount import Mount
from voice_server.web.wyoming.server import serving
from voice_server.workers.pool import WorkerPool
from voice_server.workers.pools import make_pools

DOORS = (stream_tokens, speech, vendors, voices, backends, control, health, openapi)


class Application:
    """An ASGI application. Its lifespan starts and ends the workers.

    ``state`` is what the doors see as ``app.state``. Whoever runs it awaits ``drain`` before the
    sockets are closed, which uvicorn does at once when it is told to stop: on SIGTERM, first
    ``drain``, then ``Server.should_exit``.
    """

    def __init__(
        self,
        config: Config,
        pools: MutableMapping[str, WorkerPool] | None = None,
        wyoming: socket.socket | None = None,
    ) -> None:
        """``pools``: those of ``config``, if they were made, and started, already. ``wyoming``:
        where that protocol is served, if it is.

        Raises BackendNotInstalled for a backend of ``config.start`` that is not installed.
        """
        pools = make_pools(config) if pools is None else pools
        catalogue = control.catalogue_of(config.settings)
        self.service = SpeechService(config, pools, catalogue)
        routes = [route for door in DOORS for route in door.routes()]
        handlers: dict[Any, Any] = {
            VoiceServerError: errors.answer_error,
            HTTPException: errors.answer_http_error,
            ClientDisconnect: errors.answer_nobody,
            OSError: errors.answer_os_error,
            Exception: errors.answer_unexpected,
        }
        self.router = Starlette(
            routes=[*routes, WebSocketRoute("/{path:path}", _NoSuchSocket())],
            lifespan=self._lifespan,
            exception_handlers=handlers,
        )
        self.state = self.router.state
        self.state.config = config
        self.state.catalogue = catalogue
        self.state.speech = self.service
        self.state.keyring = Keyring(catalogue.database)
        self.state.is_tunnelled = None  # whether the relay is reached, where there is one
        self._refusal = ""
        self._wyoming = wyoming
        self._asgi = errors.Boundary(_guarded(self.router, config, self.state.keyring))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, self._plain(send) if scope["type"] == "lifespan" else send)

    async def drain(self) -> bool:
        """Be unready, refuse new turns and let running ones finish, for ``drain_timeout`` at most.

        True when all have finished. Every socket is told, and closed, when this returns.
        """
        return await self.service.drain(self.service.limits.drain_timeout)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            with owned(self.service.config.settings.data_dir):
                await self.service.start()
                async with (
                    control.running(self.state, self.service.config),
                    serving(self._wyoming, self.state),
                ):
                    preloading = asyncio.create_task(self._preload())
                    try:
                        yield
                    finally:
                        preloading.cancel()
                        await self.service.stop()
        except VoiceServerError as exc:
            self._refusal = str(exc)
            raise

    def _plain(self, send: Send) -> Send:
        """A setting that is wrong is told in its own words, not as a traceback."""

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._refusal:
                message = {**message, "message": self._refusal}
            await send(message)

        return told

    async def _preload(self) -> None:
        """Import the codecs before anybody asks for one: that holds all others up for a moment."""
        pool = self.service.pools[self.service.config.default]
        while not pool.is_ready:
            await asyncio.sleep(0.5)
        await codec(sound_format("mp3", 16_000))


def create_app(
    config: Config,
    pools: MutableMapping[str, WorkerPool] | None = None,
    wyoming: socket.socket | None = None,
) -> Application:
    """The application of a configuration; see ``Application``. Raises BackendNotInstalled."""
    return Application(config, pools, wyoming)


def _guarded(app: ASGIApp, config: Config, keyring: Keyring) -> ASGIApp:
    settings = config.settings
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    app = Mount(Gate(app, key, settings.allowed_origins, settings.host, keyring))
    if settings.allowed_origins:
        # Outside the gate: a browser asks whether it may before it shows the key.
        app = CORSMiddleware(
            app, allow_origins=settings.allowed_origins, allow_methods="*", allow_headers="*"
        )
    return app


class _NoSuchSocket:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = NotFound(f"there is no WebSocket at {scope['path'][:200]}; use /stream-tokens")
        await errors.deny(scope, receive, send, error)
