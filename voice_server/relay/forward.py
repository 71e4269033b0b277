"""A client's request or WebSocket, sent through the tunnel, and the answer that comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from voice_server.core.errors import (
    TooLarge,
    TunnelDown,
    TunnelTimeout,
    VoiceServerError,
)
from voice_server.core.tunnel import MAX_RECORD, Record
from voice_server.core.tunnel.records import CLOSE, MAX_HEADERS, SCOPE, size
from voice_server.relay.endpoint import Endpoint, Stream, StreamOver
from voice_server.relay.wire import Data, wire_of
from voice_server.web.errors import answer, close


def crossing(scope: Scope) -> Record:
    """What crosses of a scope. Raises TooLarge."""
    held: Record = {name: scope.get(name) for name in SCOPE}
    held["headers"] = [[name, value] for name, value in scope["headers"]]
    held["client"] = list(scope["client"]) if scope.get("client") else None
    held["raw_path"] = scope.get("raw_path") or scope["path"].encode()
    if scope["type"] == "websocket":
        held["subprotocols"] = list(scope.get("subprotocols") or ())
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    if max(headers, len(held["raw_path"]) + len(held["query_string"])) > MAX_HEADERS:
        raise TooLarge(f"headers have at most {MAX_HEADERS} bytes, and so have path and query")
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
    """A WebSocket. Once the box has accepted it, messages are sent on where they arrive."""

    def __init__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._wire = wire_of(scope)
        self._stream = endpoint.open(crossing(scope))
        self._last: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        self._mistake: VoiceServerError | None = None

    async def run(self, deadline: float) -> None:
        await self._receive()  # websocket.connect
        self._wire.listen(self._from_client, self._to_client)
        leaving = asyncio.create_task(self._leave())
        try:
            with suppress(OSError):  # the client is gone
                try:
                    await self._relay(deadline)
                except VoiceServerError as exc:
                    await answer(exc)(self._scope, self._receive, self._send)
            # The box waits to hear how the client took the end. And uvicorn logs an error when we
            # return before the connection of one that was refused has gone.
            await asyncio.wait({leaving}, timeout=self._wire.close_timeout)
        finally:
            leaving.cancel()
            self._stream.on_change = None
            if not self._stream.is_over:
                self._stream.write({"type": "websocket.disconnect", "code": 1006, "reason": None})

    async def _relay(self, deadline: float) -> None:
        """Send on what the box says, to its last word."""
        try:
            async with asyncio.timeout(deadline):
                record = await self._stream.receive()
        except TimeoutError:
            self._stream.reset("deadline")
            raise _too_late(deadline) from None
        if record is not None and record["type"] == "websocket.accept":
            await self._send(_message(record))
            self._stream.on_change = self._to_client
            self._to_client()
            record = await self._last
            if record is None and self._stream.reason != _GONE:
                await close(self._send, self._mistake or _lost(self._stream))
        elif record is None and self._stream.reason != _GONE:
            raise _lost(self._stream)
        while record is not None:
            await self._send(_message(record))
            record = None if record["type"] == CLOSE else await self._stream.receive()

    def _to_client(self) -> None:
        """Send on what has come, as fast as the client takes it, and let it speak again."""
        if self._last.done():
            return
        if self._wire.read_paused and self._stream.has_room:
            self._wire.resume_reading()
        while self._wire.is_writable:
            record = self._stream.take()
            if record is None:
                if self._stream.is_over:
                    self._last.set_result(None)
                return
            if record["type"] != "websocket.send":
                self._last.set_result(record)
                return
            data = record["bytes"]
            self._wire.write((record["text"] or "") if data is None else data)

    def _from_client(self, message: Data) -> None:
        if self._stream.is_over:
            return
        text, data = (message, None) if isinstance(message, str) else (None, message)
        record = {"type": "websocket.receive", "text": text, "bytes": data}
        if size(record) > MAX_RECORD:
            self._mistake = TooLarge("")
            self._stream.reset("too large")
            return
        self._stream.write(record)
        if not self._stream.has_room:
            self._wire.pause_reading()

    async def _leave(self) -> None:
        """Tell the box when the client has gone."""
        message = await self._receive()
        if not self._stream.is_over:
            left = {"code": message.get("code") or 1005, "reason": message.get("reason")}
            self._stream.write({"type": "websocket.disconnect", **left})
        self._stream.end(_GONE)


def _message(record: Record) -> Message:
    """The ASGI message of a record of a WebSocket."""
    return {k: v for k, v in record.items() if k != "stream" and v is not None}


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
