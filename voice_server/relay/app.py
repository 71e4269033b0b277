"""The relay: an ASGI application whose answers come from the boxes that dialled it.

    WS   /tunnel                                 a box comes in
    GET  /health                                 the relay's own
    GET  /api/v1/status                          the relay's, and the box's with it
    GET  /relay/metrics                          the relay's, for Prometheus
    POST /api/v1/tts/voices/sync                 the box's, and the relay's store follows
    GET  /api/v1/tts/voices/{voice_id}/package   the box's; the store's while the box is away
    …                                            the box's
    …    /boxes/{name}/…                         the same, of that box

Who shows no key goes no further. Who shows one is judged by the box, as anybody at its own door.
While the box is away the relay knows one key: its own VOICE_SERVER_API_KEY.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from voice_server import __version__
from voice_server.config import Config
from voice_server.core.errors import (
    ConfigError,
    Draining,
    NotFound,
    TunnelDown,
    Unauthorized,
    VoiceServerError,
)
from voice_server.core.manifest import SUFFIX
from voice_server.relay.agent import PATH as TUNNEL
from voice_server.relay.boxes import Box, Lobby, parse_boxes
from voice_server.relay.forward import Answer, crossing, fetch, forward
from voice_server.relay.guard import Guard
from voice_server.relay.metrics import RelayMetrics
from voice_server.relay.store import PackageStore
from voice_server.relay.sync import PREFIX
from voice_server.web.auth import Gate, is_open, presented_by
from voice_server.web.errors import Boundary, deny

logger = logging.getLogger(__name__)

_PACKAGE = re.compile(rf"{PREFIX}/([^/]+)/package")
_STATUS = "/api/v1/status"
_METRICS = "/relay/metrics"
_HEADS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
_SMALL = 8 << 20


class Relay:
    """``boxes`` by name; the first is the one without ``/boxes/…``. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        settings = config.settings
        if settings.api_key is None:
            raise ConfigError(
                "environment › VOICE_SERVER_API_KEY › expected the key that clients show to the "
                "relay: the same as the box has"
            )
        listed = settings.relay_boxes
        keys = parse_boxes("" if listed is None else listed.get_secret_value())
        self._metrics = RelayMetrics(tuple(keys))
        self._guard = Guard(settings, self._metrics)
        self.boxes = {
            name: Box(
                name,
                PackageStore(settings.data_dir / "relay" / name, settings.relay_store_mb << 20),
                self._metrics,
                keepalive=settings.relay_keepalive,
                window=config.limits.resume_window,
            )
            for name in keys
        }
        self._drain_timeout = config.limits.drain_timeout
        self._deadline = settings.relay_timeout
        self._is_draining = False
        self._lobby = Lobby(self.boxes, keys, self._guard)
        self._own = Gate(
            self._answer_alone,
            settings.api_key.get_secret_value(),
            settings.allowed_origins,
            settings.host,
        )
        self._asgi = Boundary(self._route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._asgi(scope, receive, send)

    async def drain(self) -> None:
        """Take nothing new, let what is under way finish, and tell the boxes goodbye."""
        self._is_draining = True
        until = time.monotonic() + self._drain_timeout
        while any(box.streams for box in self.boxes.values()) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        await asyncio.gather(*(box.close() for box in self.boxes.values()))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        for box in self.boxes.values():
            await box.store.load()
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        for box in self.boxes.values():
            box.abandon("the relay ends")
        await send({"type": "lifespan.shutdown.complete"})

    # -- one request -----------------------------------------------------------------------------

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "websocket" and scope["path"] == TUNNEL:
                self._check_draining()
                await self._lobby(scope, receive, send)
            elif scope["path"] == "/health" and scope["type"] == "http":
                await self._health()(scope, receive, send)
            else:
                await self._serve(scope, receive, send)
        except VoiceServerError as exc:
            self._guard.refused(exc.code)
            await deny(scope, receive, send, exc)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        box, scope = self._addressed(scope)
        self._check_draining()
        seen = dict(scope)
        headers = {name.lower(): value for name, value in scope["headers"]}
        presented = presented_by(scope, headers)  # which leaves no secret for the server's log
        self._guard.admit(box.name, scope, presented)

        is_judged = not (is_open(scope) or _is_preflight(scope))

        async def heard(message: Message) -> None:
            if is_judged and message["type"] in _HEADS:
                self._guard.answered(box.name, scope, presented, message.get("status", 200))
            await send(message)

        is_keyed = any((*presented.keys, *presented.tickets))
        if is_judged and not is_keyed:
            raise Unauthorized(
                "this relay wants an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key'"
            )
        scope.setdefault("state", {})["box"] = box
        match scope.get("method"), scope["path"]:
            case "GET", path if path == _STATUS:
                answer = await self._status(box, seen)
            case "POST", path if path == f"{PREFIX}/sync":
                answer = await self._sync(box, seen, receive)
            case "GET", path if path == _METRICS:
                answer = None
            case "GET", path if _PACKAGE.fullmatch(path) and not box.is_connected:
                answer = None
            case _:
                await forward(box.endpoint(), seen, receive, heard, self._deadline)
                return
        if answer is None:
            await self._own(scope, receive, heard)
        else:
            await answer(scope, receive, heard)

    def _addressed(self, scope: Scope) -> tuple[Box, Scope]:
        """The box, and the scope as that box sees it."""
        path: str = scope["path"]
        if not path.startswith("/boxes/"):
            return next(iter(self.boxes.values())), scope
        name, _, rest = path.removeprefix("/boxes/").partition("/")
        if name not in self.boxes:
            raise NotFound(f"no box is named {name[:64]!r} here")
        # The escapes of the name, which has none, are no matter; those of the rest stay.
        raw = scope.get("raw_path", path.encode()).split(b"/", 3)
        scope["path"], scope["raw_path"] = f"/{rest}", b"/" + (raw[3] if len(raw) > 3 else b"")
        return self.boxes[name], scope

    def _check_draining(self) -> None:
        if self._is_draining:
            raise Draining("the relay is going away; ask again in a moment")

    # -- what the relay has a part in ------------------------------------------------------------

    def _health(self) -> Response:
        """The relay is alive; whether its boxes are, /api/v1/status says to who has a key."""
        return JSONResponse({"status": "healthy", "ok": True, "relay": "ok"})

    async def _ask(self, box: Box, scope: Scope, body: bytes = b"") -> Answer:
        return await fetch(
            box.endpoint(), crossing(scope), body, deadline=self._deadline, max_bytes=_SMALL
        )

    async def _status(self, box: Box, scope: Scope) -> Response | None:
        try:
            answer = await self._ask(box, scope)
        except TunnelDown:
            return None
        if answer.status != 200:
            return _response(answer)
        return JSONResponse({**json.loads(answer.body), **self._about(box)})

    async def _sync(self, box: Box, scope: Scope, receive: Receive) -> Response:
        answer = await self._ask(box, scope)
        if answer.status != 200:
            return _response(answer)
        done = await box.sync.now(box.endpoint())
        counted = {"sent": done.fetched, "deleted": done.deleted}
        return JSONResponse({**json.loads(answer.body), **counted})

    async def _answer_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a box that is away would answer, to who has the relay's own key."""
        box: Box = scope["state"]["box"]
        found = _PACKAGE.fullmatch(scope["path"])
        if scope["path"] == _METRICS:
            answer: Response = Response(
                self._metrics.exposition(self.boxes), media_type=CONTENT_TYPE_LATEST
            )
        elif found is None:
            about = {"status": "away", "version": __version__, "backends": {}}
            answer = JSONResponse({**about, "voices": len(box.store.digests), **self._about(box)})
        else:
            voice_id = found[1]
            try:
                path = box.store.path(voice_id)
            except VoiceServerError:
                if not box.store.digests:
                    box.endpoint()  # which says that the box is away
                raise
            disposition = f'attachment; filename="{voice_id}{SUFFIX}"'
            answer = FileResponse(
                path,
                media_type="application/zip",
                headers={"Content-Disposition": disposition, "X-Served-By": "relay"},
            )
        await answer(scope, receive, send)

    def _about(self, box: Box) -> dict[str, Any]:
        return {
            "relay": "ok",
            "tunnel_connected": box.is_connected,
            "box": box.name,
            "streams": box.streams,
            "stored_packages": len(box.store.digests),
        }


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = [(name, value) for name, value in answer.headers]
    return response


def _is_preflight(scope: Scope) -> bool:
    """A browser asks whether it may, before it shows a key; the box knows the answer."""
    return scope.get("method") == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in scope["headers"]
    )
