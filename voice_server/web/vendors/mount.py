"""Which vendor's client asks: some paths belong to several, and each expects its own refusals."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

VENDORS: Final = ("openai", "elevenlabs", "deepgram", "cartesia")
# A header that only this vendor's clients send.
_HEADERS: Final = ((b"xi-api-key", "elevenlabs"), (b"cartesia-version", "cartesia"))
# Paths of one vendor alone, and of OpenAI where nothing else tells.
_PATHS: Final = tuple(
    (re.compile(path), vendor)
    for path, vendor in (
        (r"/v1/(text-to-speech|voices|user)(/.*)?|/v2/voices", "elevenlabs"),
        (r"/v[12]/speak", "deepgram"),
        (r"/tts/(bytes|sse|websocket)", "cartesia"),
        (r"/telephony/.*", "telephony"),
        (r"/v1(/.*)?", "openai"),
    )
)


class Mount:
    """Sets ``vendor`` in ``scope["state"]``, "" for a client of our own protocol.

    ``/elevenlabs/v1/models`` is ``/v1/models`` of that vendor, and so on: a base URL with the
    vendor's name in it settles every collision. Outside the gate, whose refusals have a shape too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path: str = scope["path"]
            vendor, _, rest = path[1:].partition("/")
            if vendor in VENDORS:
                # In place, as in the gate: the server that made the scope logs it later.
                scope["path"] = f"/{rest}"
            else:
                vendor = _vendor(scope)
            scope.setdefault("state", {})["vendor"] = vendor
        await self._app(scope, receive, send)


def _vendor(scope: Scope) -> str:
    names = {name for name, _ in scope["headers"]}
    for header, vendor in _HEADERS:
        if header in names:
            return vendor
    for pattern, vendor in _PATHS:
        if pattern.fullmatch(scope["path"]):
            return vendor
    return ""
