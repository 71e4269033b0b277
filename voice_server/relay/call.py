"""A stream of the tunnel as one call of an ASGI application, as a web server would make it."""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Message

from voice_server.core.tunnel.errors import TunnelBroken
from voice_server.core.tunnel.records import Record
from voice_server.relay.endpoint import Stream, StreamOver

logger = logging.getLogger(__name__)


class Call:
    """``scope`` is what the record ``open`` holds of one."""

    def __init__(self, stream: Stream, scope: Record) -> None:
        self._stream = stream
        self._scope = whole_scope(scope)
        self._is_socket = scope["type"] == "websocket"
        self._is_connecting = self._is_socket

    async def run(self, app: ASGIApp) -> None:
        """Have ``app`` answer the stream; it is over afterwards."""
        try:
            await app(self._scope, self._receive, self._send)
        except StreamOver:
            pass
        except TunnelBroken as exc:
            logger.error("%.200r cannot cross the tunnel: %s", self._scope["path"], exc)
        except Exception:
            logger.exception("%.200r failed", self._scope["path"])
        finally:
            self._stream.leave()

    async def _receive(self) -> Message:
        if self._is_connecting:
            self._is_connecting = False
            return {"type": "websocket.connect"}
        record = await self._stream.receive()
        if record is None:
            # 1006 is RFC 6455's word for a connection that was lost without one.
            lost = {"type": "websocket.disconnect", "code": 1006}
            return lost if self._is_socket else {"type": "http.disconnect"}
        return {k: v for k, v in record.items() if k != "stream" and v is not None}

    async def _send(self, message: Message) -> None:
        try:
            await self._stream.send(_record(message))
        except StreamOver:
            # What an HTTP client that is gone would have got is nobody's error.
            if self._is_socket:
                raise


def whole_scope(scope: Record) -> dict[str, Any]:
    """An ASGI scope from what crossed of one."""
    is_socket = scope["type"] == "websocket"
    client = scope.get("client")
    made = {
        **{name: value for name, value in scope.items() if value is not None},
        "asgi": {"version": "3.0", "spec_version": "2.4" if is_socket else "2.3"},
        "root_path": "",
        "server": None,
        "client": tuple(client) if client else None,
        "headers": [(name, value) for name, value in scope["headers"]],
        "state": {},
        "extensions": {"websocket.http.response": {}} if is_socket else {},
    }
    if is_socket:
        made.setdefault("subprotocols", [])
    return made


def _record(message: Message) -> Record:
    """The record of a message that an application sends."""
    kind = message["type"]
    headers = [[bytes(name), bytes(value)] for name, value in message.get("headers") or ()]
    match kind:
        case "http.response.start" | "websocket.http.response.start":
            return {"type": kind, "status": int(message["status"]), "headers": headers}
        case "http.response.body" | "websocket.http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            return {"type": kind, "body": bytes(body), "more_body": bool(more)}
        case "websocket.accept":
            return {"type": kind, "subprotocol": message.get("subprotocol"), "headers": headers}
        case "websocket.send":
            data = message.get("bytes")
            held = None if data is None else bytes(data)
            return {"type": kind, "bytes": held, "text": message.get("text")}
        case "websocket.close":
            code, reason = message.get("code", 1000), message.get("reason") or ""
            return {"type": kind, "code": code, "reason": reason}
    raise TunnelBroken(f"no ASGI message {kind!r:.60} crosses a tunnel")
