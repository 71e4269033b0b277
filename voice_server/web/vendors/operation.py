"""What vendors' clients call: HTTP operations and WebSockets that answer one vendor alone."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.routing import Match, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from voice_server.audio.formats import ENCODINGS
from voice_server.core.errors import VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.web.errors import deny
from voice_server.web.operations import Content, Handler, Operation
from voice_server.web.stream_tokens import accept
from voice_server.web.vendors.channel import Translation, VendorChannel
from voice_server.web.vendors.errors import ID_HEADERS, refusal_model, refusal_status, request_id
from voice_server.web.vendors.mount import VENDORS

_KINDS = dict.fromkeys(kind for row in ENCODINGS.values() for kind in row.containers.values())


# What can become of a text, and of a recording, beside what is wrong with the request itself.
SPEECH_ERRORS = (404, 502, 503)
CLONING_ERRORS = (409, 503, 507)


def sound(*kinds: str) -> Mapping[int, Content]:
    """The answers of what speaks. ``kinds``: media types beside those of our encodings."""
    return {200: Content((*_KINDS, *kinds), "The sound, in the format asked for")}


Translate = Callable[[HTTPConnection], Awaitable[Translation]]
"""Makes the translation of one connection. What it raises is answered in place of the handshake."""


class Body(BaseModel):
    """Base of what a vendor's client sends: fields of the vendor that mean nothing here pass."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class VendorOperation(Operation):
    """An Operation for clients of ``vendor``. Its answers carry the request's number.

    The document has it under the vendor's name, where nobody else answers.
    """

    def __init__(
        self,
        vendor: str,
        method: str,
        path: str,
        handler: Handler,
        answers: Mapping[int, type[BaseModel] | Content],
        **options: Any,
    ) -> None:
        """``options``: those of Operation."""
        super().__init__(method, path, handler, tag=vendor, answers=answers, **options)
        self.vendor = vendor

    @property
    def described_path(self) -> str:
        return f"/{self.vendor}{self.path}" if self.vendor in VENDORS else self.path

    @property
    def operation_id(self) -> str:
        return f"{self.vendor}_{self.method.lower()}{re.sub(r'[^a-z0-9]+', '_', self.path)}"

    def refused(self, status: int) -> tuple[int, type[BaseModel] | None]:
        return refusal_status(self.vendor, status), refusal_model(self.vendor, status)

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
        socket = await accept(scope, receive, send, translation.subprotocol)
        if socket is None:
            return
        channel = VendorChannel(socket, translation)
        tenant = scope["state"].get("tenant", "")
        await service.converse(channel, tenant, translation.defaults, door=self._vendor)
