"""WebSockets that call back, for what passes by the thousand.

    ServerWire    of the relay's own server: the tunnels of the boxes, and the clients' sockets
    DialledWire   of a box: the tunnel that it dialled

ASGI and the websockets library let a task await each message, which costs a queue, a switch of
tasks and a turn of the event loop. A message that is only sent on needs none of them: from
``listen`` on it is handed over where it was read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from starlette.types import Scope
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State

from voice_server.core.tunnel import MAX_FRAME
from voice_server.web.frames import BINARY, TEXT, FrameReader, frame
from voice_server.web.socket import MAX_FRAGMENTS, MAX_UNREAD, BoundedWebSocket

Data = bytes | str
OnMessage = Callable[[Data], None]
OnWritable = Callable[[], None]

_EXTENSION: Final = "voice_server.wire"


class LinkLost(Exception):
    """The socket is gone; the session waits for another one."""


class Wire(Protocol):
    """A WebSocket that is open."""

    @property
    def is_writable(self) -> bool:
        """Whether what is written goes out soon. ``listen`` says who is told when it does again."""
        ...

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        """Have each message handed over where it is read, the ones that wait already at once."""
        ...

    async def receive_message(self) -> Data:
        """The next message, before ``listen``. Raises LinkLost."""
        ...

    def write(self, message: Data) -> None:
        """Send a message. Nothing happens where the socket is closed."""
        ...

    async def closed(self) -> str:
        """Return when the socket is gone, and say how it ended."""
        ...


class _Post:
    """Messages of a socket, kept until somebody listens."""

    def __init__(self) -> None:
        self.unheard: deque[Data] = deque()
        self.is_over = False
        self._arrived = asyncio.Event()
        self._on_message: OnMessage | None = None
        self.on_writable: OnWritable = lambda: None

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        self._on_message, self.on_writable = on_message, on_writable
        while self.unheard:
            on_message(self.unheard.popleft())

    def put(self, message: Data) -> None:
        if self._on_message is not None:
            self._on_message(message)
        else:
            self.unheard.append(message)
            self._arrived.set()

    def end(self) -> None:
        self.is_over = True
        self._arrived.set()

    async def get(self) -> Data:
        """Raises LinkLost."""
        while not self.unheard:
            if self.is_over:
                raise LinkLost("the connection is gone")
            self._arrived.clear()
            await self._arrived.wait()
        return self.unheard.popleft()


class ServerWire(BoundedWebSocket):
    """What ``uvicorn.Config(ws=…)`` takes. ASGI opens and closes the socket, and tells its end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._post = _Post()
        self._reader = FrameReader(is_masked=True, max_size=self.config.ws_max_size)

    @property
    def is_writable(self) -> bool:
        return self.writable.is_set()

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        self._post.listen(on_message, on_writable)
        self.resume_reading()

    def write(self, message: Data) -> None:
        if self.conn.state is State.OPEN and not self.disconnected:
            self.transport.write(_frame(message, is_masked=False))

    async def receive_message(self) -> Data:
        return await self._post.get()

    async def closed(self) -> str:
        message = cast("dict[str, Any]", await self.receive())
        return f"closed with {message.get('code')}"

    def pause_reading(self) -> None:
        """Take no more messages of the peer for now."""
        if not (self.read_paused or self.close_sent):
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take them again."""
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
            self._read()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            # It reads again where reading was paused: the peer's close may be in what was held up.
            self._read()

    # -- uvicorn calls -----------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # else it was no handshake, and has no scope
            cast("dict[str, Any]", self.scope)["extensions"][_EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # this is the request, all of it
            super().data_received(data)
            return
        self._reader.feed(data)
        self._read()

    def _read(self) -> None:
        while not self.read_paused and (found := self._reader.next()) is not None:
            first, payload = found
            if not first:
                super().data_received(payload)
            elif self.conn.state is State.OPEN:
                self._put(first, payload)

    def send_receive_event_to_app(self) -> None:
        """A message that came in fragments is whole."""
        whole, self.frames = b"".join(self.frames), []
        if not self.close_sent:
            self._put(BINARY if self.curr_msg_data_type == "bytes" else TEXT, whole)

    def _put(self, first: int, payload: bytes) -> None:
        try:
            self._post.put(payload if first == BINARY else payload.decode())
        except UnicodeDecodeError:
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        if len(self._post.unheard) >= MAX_UNREAD:
            self.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._post.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._post.end()


def wire_of(scope: Scope) -> ServerWire:
    """The socket behind the scope of a WebSocket, which a server of ``ServerWire``\\ s has made."""
    wire: ServerWire = scope["extensions"][_EXTENSION]
    return wire


class DialledWire(ClientConnection):
    """What ``connect(create_connection=…)`` takes. ``receive`` is for the handshake."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._post = _Post()
        self._fragments: list[Frame] = []
        self._head: bytearray | None = bytearray()
        self._is_refused = False
        self._reader = FrameReader(is_masked=False, max_size=MAX_FRAME)

    @property
    def is_writable(self) -> bool:
        return not self.paused

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        self._post.listen(on_message, on_writable)

    def write(self, message: Data) -> None:
        if self.protocol.state is State.OPEN:
            self.transport.write(_frame(message, is_masked=True))

    async def receive_message(self) -> Data:
        return await self._post.get()

    async def closed(self) -> str:
        await self.wait_closed()
        return f"closed with {self.close_code} {self.close_reason}".rstrip()

    # -- the library calls -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            # The answer to the handshake; frames may stand right behind it.
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                super().data_received(data)
                return
            known, whole, self._head = len(self._head) - len(data), bytes(self._head), None
            super().data_received(whole[known:end])
            data = whole[end:]
            self._is_refused = self.protocol.state is not State.OPEN
        if self._is_refused:
            super().data_received(data)
            return
        self._reader.feed(data)
        while (found := self._reader.next()) is not None:
            first, payload = found
            if not first:
                super().data_received(payload)
            elif self.protocol.state is State.OPEN:
                self._put(first == BINARY, payload)

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in _DATA:
            self._assemble(event)
        else:
            super().process_event(event)

    def _assemble(self, frame: Frame) -> None:
        self._fragments.append(frame)
        if frame.fin:
            whole = b"".join(bytes(part.data) for part in self._fragments)
            is_binary = self._fragments[0].opcode is Opcode.BINARY
            self._fragments = []
            self._put(is_binary, whole)
        elif len(self._fragments) >= MAX_FRAGMENTS:
            # The library bounds the bytes of a message, but not the fragments, which may be empty.
            self.transport.abort()

    def _put(self, is_binary: bool, payload: bytes) -> None:
        try:
            self._post.put(payload if is_binary else payload.decode())
        except UnicodeDecodeError:
            self.transport.abort()
        if len(self._post.unheard) > MAX_UNREAD:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._post.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._post.end()


def _frame(message: Data, *, is_masked: bool) -> bytes:
    if isinstance(message, bytes):
        return frame(BINARY, message, is_masked=is_masked)
    return frame(TEXT, message.encode("utf-8", "replace"), is_masked=is_masked)


_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)
