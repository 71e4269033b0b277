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
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State

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

    @property
    def is_writable(self) -> bool:
        return self.writable.is_set()

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        self._post.listen(on_message, on_writable)
        self.resume_reading()

    def write(self, message: Data) -> None:
        if self.disconnected or self.close_sent:
            return
        try:
            if isinstance(message, bytes):
                self.conn.send_binary(message)
            else:
                self.conn.send_text(message.encode("utf-8", "replace"))
        except InvalidState:
            return  # the peer has closed it
        self.transport.write(b"".join(self.conn.data_to_send()))

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

    # -- uvicorn calls -----------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # else it was no handshake, and has no scope
            cast("dict[str, Any]", self.scope)["extensions"][_EXTENSION] = self

    def send_receive_event_to_app(self) -> None:
        """A message is whole: it passes ASGI by."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        try:
            self._post.put(bytes(data) if self.curr_msg_data_type == "bytes" else data.decode())
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

    @property
    def is_writable(self) -> bool:
        return not self.paused

    def listen(self, on_message: OnMessage, on_writable: OnWritable) -> None:
        self._post.listen(on_message, on_writable)

    def write(self, message: Data) -> None:
        if self.protocol.state is not State.OPEN:
            return
        if isinstance(message, bytes):
            self.protocol.send_binary(message)
        else:
            self.protocol.send_text(message.encode("utf-8", "replace"))
        self.send_data()

    async def receive_message(self) -> Data:
        return await self._post.get()

    async def closed(self) -> str:
        await self.wait_closed()
        return f"closed with {self.close_code} {self.close_reason}".rstrip()

    # -- the library calls -------------------------------------------------------------------------

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in _DATA:
            self._assemble(event)
        else:
            super().process_event(event)

    def _assemble(self, frame: Frame) -> None:
        # The library bounds the bytes of a message, but not the fragments, which may be empty.
        if len(self._post.unheard) >= MAX_UNREAD or len(self._fragments) >= MAX_FRAGMENTS:
            self.transport.abort()
            return
        if self._fragments or not frame.fin:
            self._fragments.append(frame)
            if not frame.fin:
                return
            whole = b"".join(bytes(part.data) for part in self._fragments)
            opcode, self._fragments = self._fragments[0].opcode, []
        else:
            opcode, whole = frame.opcode, bytes(frame.data)
        try:
            self._post.put(whole if opcode is Opcode.BINARY else whole.decode())
        except UnicodeDecodeError:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._post.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._post.end()


_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)
