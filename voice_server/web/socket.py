"""uvicorn's WebSocket: two bounds that it lacks, and a short way for the messages of our clients.

A language model's client sends twenty messages a second of thirty bytes each. Those are taken here;
whatever else may come, websockets parses and judges. An application finds the way under
``DIRECT`` in the extensions of its scope.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.streams import StreamReader

from voice_server.web.frames import BINARY, TEXT, apply_mask, frame

# A message of 64 KiB in pieces of 256 bytes. Empty fragments count for nothing in its size limit,
# and four million of them are a message too.
MAX_FRAGMENTS: Final = 256
DIRECT: Final = "voice_server.direct"
# Others get a word in after so many messages that were taken as they came.
MAX_TAKEN: Final = 32
# Reading stops at so many unread messages. Stopping at each one, as uvicorn does, costs two system
# calls for every token.
MAX_UNREAD: Final = 32

_MASKED: Final = 0x80  # the second one, but for the length
_HEADER: Final = 6  # bytes, of them four of the mask
_SHORT: Final = 125  # bytes; longer ones have a longer header
_BETWEEN_FRAMES: Final = StreamReader.at_eof.__code__


class Unread(deque[Any]):
    """Messages for one reader. An ``asyncio.Queue`` costs three times as much."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self.append(message)
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def wait(self) -> None:
        """Until a message was put here."""
        self._reader = self._loop.create_future()
        await self._reader

    @property
    def is_awaited(self) -> bool:
        """There is nothing here, and the reader has nothing else to do."""
        return self._reader is not None and not self._reader.done()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """What ``uvicorn.Config(ws=…)`` takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue: Any = Unread(self.loop)
        # Takes a short text at once, while its reader waits for one; or returns False, and the
        # reader gets it. Waking a task costs as much as taking a token.
        self.take: Callable[[str], bool] | None = None
        self._is_refused = False  # told why; what it still sends is not looked at

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # The kernel's buffer is enough: what a deaf client does not take is not held here as well.
        transport.set_write_buffer_limits(high=0)

    async def run_asgi(self) -> None:
        self.scope["extensions"][DIRECT] = {"socket": self}
        try:
            await super().run_asgi()
        finally:
            del self.scope["extensions"][DIRECT]  # or it would hold itself
            self.take = None

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return  # parsing a flood costs more than reading it
        if data[0] == TEXT and self._is_between_frames():
            data = self._take_short_texts(data)
        if data and not self.transport.is_closing():
            super().data_received(data)
            if self.conn.handshake_exc is not None and not self.handshake_complete:
                self._refuse_handshake()

    async def receive(self) -> Any:
        while not self.queue:
            await self.queue.wait()
        message = self.queue.popleft()
        if self.read_paused and not self.queue:
            self.read_paused = False
            self.transport.resume_reading()
        return message

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self.close_sent:
            # uvicorn has closed by itself, for want of a pong or over a broken frame.
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.close" and self.close_timer is not None:
            # uvicorn tells the application what it asked for. How it ends is the peer's to say.
            self.queue.pop()

    def handle_close(self, event: Frame) -> None:
        if self.close_sent:
            # The answer: the peer has got everything that was sent before.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
        super().handle_close(event)

    def handle_ping(self) -> None:
        # Past the close nothing is written.
        if not self.close_sent:
            super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1008, f"a message has at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """As uvicorn, but the peer gets to read why: a socket that is closed over unread bytes
        answers with a reset, which overtakes the close frame. What still comes is discarded."""
        if self.close_timer is not None:
            return
        close = self.conn.close_sent
        assert close is not None
        # An enumeration of websockets is no number to whoever passes it on.
        why = {"type": "websocket.disconnect", "code": int(close.code), "reason": close.reason}
        self.queue.put_nowait(why)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._is_refused = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def send_receive_event_to_app(self) -> None:
        data = b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            # Past the close nobody takes it, and the peer's own close must still be read.
            return
        if self.curr_msg_data_type == "text":
            try:
                self.queue.put_nowait({"type": "websocket.receive", "text": data.decode()})
            except UnicodeDecodeError:
                # uvicorn logs a traceback, for what any stranger can send.
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        if not self.read_paused and len(self.queue) >= MAX_UNREAD:
            self.read_paused = True
            self.transport.pause_reading()

    def _refuse_handshake(self) -> None:
        """Send what websockets answers to a line that is too long; uvicorn leaves it unsent."""
        self.handshake_complete = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def write_sound(self, *sound: bytes) -> bool:
        """Write binary messages, if the connection is open and nothing is before them."""
        is_open = self.handshake_complete and not (self.close_sent or self.disconnected)
        conn = self.conn
        if not is_open or conn.extensions or conn.state is not OPEN or not self.writable.is_set():
            return False
        self.transport.writelines([frame(BINARY, each, is_masked=False) for each in sound])
        return True

    def _is_between_frames(self) -> bool:
        """An open connection that awaits the first byte of a message, as far as we can tell."""
        conn = self.conn
        if conn.state is not OPEN or conn.current_size is not None or conn.debug:
            return False
        # The parser delegates: to the one that client and server share, then to who awaits a byte.
        parser: Any = conn.parser
        while (inner := parser.gi_yieldfrom) is not None:
            parser = inner
        return parser.gi_code is _BETWEEN_FRAMES

    def _take_short_texts(self, data: bytes) -> bytes:
        """Take whole short texts from the front of ``data``; returns the rest."""
        at, size, taken = 0, len(data), 0
        while at + _HEADER <= size and data[at] == TEXT:
            length = data[at + 1] - _MASKED
            start = at + _HEADER
            end = start + length
            if not 0 <= length <= _SHORT or end > size or self.close_sent:
                break
            payload = apply_mask(data[start:end], data[at + 2 : start])
            at = end
            if taken < MAX_TAKEN and self._is_taken(payload):
                taken += 1
                continue
            self.curr_msg_data_type = "text"
            self.frames = [payload]
            self.send_receive_event_to_app()
        return data[at:] if at else data

    def _is_taken(self, payload: bytes) -> bool:
        if self.take is None or not self.queue.is_awaited:
            return False
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return False
        return self.take(text)
