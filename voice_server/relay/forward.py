"""A client's request or WebSocket, sent through the tunnel, and the answer that comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from voice_server.core.errors import (
    TooLarge,
    TunnelDown,
    TunnelTimeout,
    VoiceServerError,
)
from voice_server.core.tunnel import MAX_RECORD, Record
from voice_server.core.tunnel.records import SCOPE
from voice_server.relay.endpoint import Endpoint, Stream, StreamOver
from voice_server.web.errors import answer, close


def crossing(scope: Scope) -> Record:
    """What crosses of a scope."""
    held: Record = {name: scope.get(name) for name in SCOPE}
    held["headers"] = [[name, value] for name, value in scope["headers"]]
    held["client"] = list(scope["client"]) if scope.get("client") else None
    held["raw_path"] = scope.get("raw_path") or scope["path"].encode()
    if scope["type"] == "websocket":
        held["subprotocols"] = list(scope.get("subprotocols") or ())
    return held


async def forward(
    endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, deadline: float
) -> None:
    """Answer a request with what the box answers.

    Raises TunnelTimeout after ``deadline`` seconds without a beginning of the answer, TunnelDown
    where the session ends before it. One that ends later breaks the answer off.
    """
    if scope["type"] == "websocket":
        await _Conversation(endpoint, scope, receive, send).run(deadline)
    else:
        await _exchange(endpoint, scope, receive, send, deadline)


async def _exchange(
    endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, deadline: float
) -> None:
    stream = endpoint.open(crossing(scope))
    try:
        async with asyncio.timeout(deadline) as limit:
            upload = asyncio.create_task(_upload(stream, receive, limit, deadline))
            try:
                record = await stream.receive()
            except BaseException:
                upload.cancel()
                raise
    except TimeoutError:
        stream.reset("deadline")
        raise _too_late(deadline) from None
    try:
        if record is None and stream.reason != _GONE:
            raise _lost(stream)
        while record is not None:
            await send({k: v for k, v in record.items() if k != "stream"})
            record = await stream.receive()
    finally:
        upload.cancel()
        stream.reset(_GONE)


async def _upload(
    stream: Stream, receive: Receive, limit: asyncio.Timeout, deadline: float
) -> None:
    """Send the body on, as fast as the box takes it; each piece gives the answer more time."""
    loop = asyncio.get_running_loop()
    with suppress(StreamOver):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                stream.reset(_GONE)
                return
            body, more = message.get("body", b""), message.get("more_body", False)
            await stream.send({"type": "http.request", "body": body, "more_body": more})
            with suppress(RuntimeError):  # the answer has begun
                limit.reschedule(loop.time() + deadline)


class _Conversation:
    """A WebSocket."""

    def __init__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._stream = endpoint.open(crossing(scope))
        self._is_accepted = self._is_closed = self._is_refused = False

    async def run(self, deadline: float) -> None:
        await self._receive()  # websocket.connect
        reader = asyncio.create_task(self._read())
        try:
            try:
                await self._relay(deadline)
            except VoiceServerError as exc:
                self._is_refused = True
                await answer(exc)(self._scope, self._receive, self._send)
            if self._is_refused:
                # uvicorn logs an error when we return before the connection has gone.
                await asyncio.wait({reader}, timeout=1.0)
        except OSError:
            pass  # the client is gone
        finally:
            reader.cancel()
            if not self._stream.is_over:
                with suppress(StreamOver):
                    await self._stream.send({"type": "websocket.disconnect", "code": 1006})

    async def _relay(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline):
                record = await self._stream.receive()
        except TimeoutError:
            self._stream.reset("deadline")
            raise _too_late(deadline) from None
        while record is not None:
            kind = record["type"]
            await self._send({k: v for k, v in record.items() if k != "stream" and v is not None})
            self._is_accepted |= kind == "websocket.accept"
            self._is_closed |= kind == "websocket.close"
            self._is_refused |= kind.startswith("websocket.http.")
            record = await self._stream.receive()
        if self._is_closed or self._is_refused or self._stream.reason == _GONE:
            return
        if not self._is_accepted:
            raise _lost(self._stream)
        await close(self._send, _lost(self._stream))

    async def _read(self) -> None:
        with suppress(StreamOver):
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    left = {"code": message.get("code") or 1005, "reason": message.get("reason")}
                    await self._stream.send({"type": "websocket.disconnect", **left})
                    self._stream.end(_GONE)
                    return
                text, data = message.get("text"), message.get("bytes")
                if len(data or b"") > MAX_RECORD or len((text or "").encode()) > MAX_RECORD:
                    self._stream.reset("too large")
                    self._is_closed = True
                    await close(self._send, TooLarge(""))
                    return
                await self._stream.send({"type": "websocket.receive", "text": text, "bytes": data})


_GONE = "the client is gone"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the box."""

    status: int
    headers: list[Any]
    body: bytes


async def fetch(
    endpoint: Endpoint,
    scope: Record,
    body: bytes = b"",
    *,
    deadline: float,
    max_bytes: int,
    own: bool = False,
) -> Answer:
    """Ask the box, and wait for all of its answer. ``own``: for the relay, not for a client.

    Raises TunnelTimeout, TunnelDown, TooLarge.
    """
    stream = endpoint.open(scope, own=own)
    try:
        async with asyncio.timeout(deadline):
            await stream.send({"type": "http.request", "body": body, "more_body": False})
            start = await stream.receive()
            if start is None or start["type"] != "http.response.start":
                raise _lost(stream)
            received = bytearray()
            is_whole = False
            while not is_whole:
                record = await stream.receive()
                if record is None:
                    raise _lost(stream)
                received += record["body"]
                is_whole = not record["more_body"]
                if len(received) > max_bytes:
                    raise TooLarge(f"the answer has more than {max_bytes} bytes")
    except StreamOver:
        raise _lost(stream) from None
    except TimeoutError:
        raise _too_late(deadline) from None
    finally:
        stream.reset("enough")
    return Answer(start["status"], start["headers"], bytes(received))


def _lost(stream: Stream) -> TunnelDown:
    return TunnelDown(
        f"the connection to the box broke off ({stream.reason or 'it gave no answer'}); ask again"
    )


def _too_late(deadline: float) -> TunnelTimeout:
    return TunnelTimeout(f"the box did not answer within {deadline:g} s; ask again later")
