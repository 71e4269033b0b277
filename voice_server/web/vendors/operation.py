"""What vendors' clients call: HTTP operations and WebSockets that answer one vendor alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.routing import Match, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from voice_server.core.errors import VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.web.errors import deny
from voice_server.web.operations import Content, Handler, Operation
from voice_server.web.stream_tokens import accept
from voice_server.web.vendors.channel import Translation, VendorChannel
from voice_server.web.vendors.errors import ID_HEADERS, request_id

SOUND = {200: Content(("audio/mpeg", "application/octet-stream"), "The sound")}
JSON = {200: Content(("application/json",), "What the vendor answers")}

Translate = Callable[[HTTPConnection], Awaitable[Translation]]
"""Makes the translation of one connection. What it raises is answered in place of the handshake."""


class Body(BaseModel):
    """Base of what a vendor's client sends: fields of the vendor that mean nothing here pass."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class VendorOperation(Operation):
    """An Operation for clients of ``vendor``. Its answers carry the request's number.

    The vendor's own reference describes it, so /openapi.json does not.
    """

    is_described = False

    def __init__(
        self,
        vendor: str,
        method: str,
        path: str,
        handler: Handler,
        answers: Mapping[int, type[BaseModel] | Content] = JSON,
        **options: Any,
    ) -> None:
        """``options``: those of Operation."""
        super().__init__(method, path, handler, tag=vendor, answers=answers, **options)
        self.vendor = vendor

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("state", {}).get("vendor") != self.vendor:
            return Match.NONE, {}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[ID_HEADERS[self.vendor]] = request_id(scope)
            await send(message)

        await super().handle(scope, receive, numbered)


class VendorSocket(WebSocketRoute):
    """A WebSocket for clients of ``vendor``."""

    def __init__(self, vendor: str, path: str, translate: Translate) -> None:
        super().__init__(path, _Socket(vendor, translate))
        self.vendor = vendor

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("state", {}).get("vendor") != self.vendor:
            return Match.NONE, {}
        return super().matches(scope)


class _Socket:
    """The ASGI application behind the route."""

    def __init__(self, vendor: str, translate: Translate) -> None:
        self._vendor = vendor
        self._translate = translate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: SpeechService = scope["app"].state.speech
        connection = HTTPConnection(scope)
        try:
            translation = await self._translate(connection)
        except VoiceServerError as exc:
            service.metrics.refused.labels(exc.code).inc()
            await deny(scope, receive, send, exc)
            return
        socket = await accept(receive, send, translation.subprotocol)
        if socket is None:
            return
        channel = VendorChannel(socket, translation)
        tenant = scope["state"].get("tenant", "")
        await service.converse(channel, tenant, translation.defaults, door=self._vendor)
