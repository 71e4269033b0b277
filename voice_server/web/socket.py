"""uvicorn's WebSocket with two bounds it lacks: fragments of a message, messages not yet read."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

# A message of 64 KiB in pieces of 256 bytes. Empty fragments count for nothing in its size limit,
# and four million of them are a message too.
MAX_FRAGMENTS: Final = 256
# Reading stops at so many unread messages. Stopping at each one, as uvicorn does, costs two system
# calls for every token.
MAX_UNREAD: Final = 32


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """What ``uvicorn.Config(ws=…)`` takes."""

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1008, f"a message has at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        # Told that reading is paused already, uvicorn does not pause it.
        was_paused, self.read_paused = self.read_paused, True
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        # Past the close nobody takes them, and the peer's own close must still be read.
        if not (was_paused or self.close_sent) and self.queue.qsize() >= MAX_UNREAD:
            self.read_paused = True
            self.transport.pause_reading()
