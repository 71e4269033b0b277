"""One end of a tunnel at work: carries a session over a socket, and lends its streams to tasks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from voice_server.core.tunnel import Encoding, Link, Record, Session
from voice_server.core.tunnel.records import is_last, size

_FRAMES_AT_ONCE = 8


class LinkLost(Exception):
    """The socket is gone; the session waits for another one."""


class SessionOver(Exception):
    """The peer has ended the session."""


class StreamOver(OSError):
    """The stream ended while somebody wanted to send: ASGI's word for a peer that is gone."""


class Socket(Protocol):
    """A WebSocket that carries frames. ``receive`` and ``send`` raise LinkLost."""

    async def receive(self) -> bytes | str: ...
    async def send(self, frame: bytes | str) -> None: ...


class Stream:
    """One stream of a session. ``reason``: why it was cut off, if it was."""

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self.number = number
        self.is_over = False
        self.reason = ""
        self._endpoint = endpoint
        self._inbox: deque[Record] = deque()
        self._arrived = asyncio.Event()
        self.room = asyncio.Event()

    async def receive(self) -> Record | None:
        """The next record; None when the stream is over."""
        while not self._inbox:
            if self.is_over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        record = self._inbox.popleft()
        if held := size(record):
            self._endpoint.session.taken(self.number, held)
            self._endpoint.wake()
        return record

    async def send(self, record: Record) -> None:
        """Send, and wait while too much waits already. Raises StreamOver."""
        if self.is_over:
            raise StreamOver(self.reason or "the stream is over")
        self._endpoint.session.write(self.number, record)
        if is_last(record):
            self.end()
        self._endpoint.wake()
        while not (self.is_over or self._endpoint.session.has_room(self.number)):
            self.room.clear()
            self._endpoint.waiting.add(self)
            await self.room.wait()

    def reset(self, reason: str) -> None:
        """End it now, from this side."""
        if not self.is_over:
            self._endpoint.session.reset(self.number, reason)
            self._endpoint.wake()
            self.end(reason)

    def put(self, record: Record) -> None:
        """A record of this stream came."""
        if record["type"] == "reset":
            # Whoever reads shall not first finish what nobody wants any more.
            self._inbox.clear()
            self.end(record["reason"] or "cut off")
            return
        self._inbox.append(record)
        if is_last(record):
            self.end()
        self._arrived.set()

    def end(self, reason: str = "") -> None:
        """Nothing more comes or goes; who waits is told."""
        self.is_over, self.reason = True, self.reason or reason
        self._endpoint.streams.pop(self.number, None)
        self._arrived.set()
        self.room.set()


class Endpoint:
    """``on_open(stream, record)`` and ``on_voices_changed()`` are called as such records come."""

    def __init__(
        self,
        session: Session,
        *,
        keepalive: float,
        on_open: Callable[[Stream, Record], None] | None = None,
        on_voices_changed: Callable[[], None] | None = None,
    ) -> None:
        """``keepalive``: seconds between signs of life; without three of them the link is lost."""
        self.session = session
        self.streams: dict[int, Stream] = {}
        self.waiting: set[Stream] = set()  # whose writers wait for room
        self._keepalive = keepalive
        self._on_open = on_open
        self._on_voices_changed = on_voices_changed
        self._wake = asyncio.Event()
        self._heard_at = 0.0

    def open(self, scope: Record, *, own: bool = False) -> Stream:
        """Begin a stream; the relay's side only."""
        stream = Stream(self, self.session.open(scope, own=own))
        self.streams[stream.number] = stream
        self.wake()
        return stream

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def leave(self, reason: str) -> None:
        """Say goodbye, ahead of all else; ``run`` then raises SessionOver."""
        self.session.bye(reason)
        self.wake()

    def abandon(self, reason: str) -> None:
        """The session is over: so is every stream."""
        for stream in list(self.streams.values()):
            stream.end(reason)

    async def run(self, link: Link, peer_received: int, socket: Socket) -> None:
        """Carry the session over ``socket``. Never returns.

        Raises LinkLost, SessionOver, TunnelBroken. The caller closes the socket.
        """
        self.session.link_up(link, peer_received)
        self._heard_at = time.monotonic()
        self.wake()
        work = (self._read(socket), self._write(socket), self._watch())
        tasks = [asyncio.create_task(part) for part in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.session.link_down()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release()

    async def _read(self, socket: Socket) -> None:
        while True:
            records = self.session.receive(await socket.receive())
            self._heard_at = time.monotonic()
            for record in records:
                self._take(record)
            # There may be credit to use now, or so much came that it must be acknowledged.
            self.wake()

    def _take(self, record: Record) -> None:
        match record["type"]:
            case "bye":
                raise SessionOver(record["reason"])
            case "voices.changed":
                if self._on_voices_changed:
                    self._on_voices_changed()
            case "open":
                stream = Stream(self, record["stream"])
                self.streams[stream.number] = stream
                assert self._on_open is not None  # the table lets nobody open who may not
                self._on_open(stream, record)
            case "credit":
                pass
            case _:
                if (known := self.streams.get(record["stream"])) is not None:
                    known.put(record)

    async def _write(self, socket: Socket) -> None:
        count = 0
        while True:
            frame = self.session.next_frame()
            if frame is None:
                self._release()
                self._wake.clear()
                await self._wake.wait()
                continue
            await socket.send(frame)
            if self.session.is_over:
                raise SessionOver("we said goodbye")
            count += 1
            if count % _FRAMES_AT_ONCE == 0:
                self._release()
                await asyncio.sleep(0)  # a send does not wait, nor let others run, by itself

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._keepalive)
            silent = time.monotonic() - self._heard_at
            if silent > 3 * self._keepalive:
                raise LinkLost(f"nothing was heard for {silent:.0f} s")
            self.session.acknowledge()
            self.wake()

    def _release(self) -> None:
        """Wake the writers that have room again."""
        for stream in [s for s in self.waiting if self.session.has_room(s.number)]:
            self.waiting.discard(stream)
            stream.room.set()


def as_frame(data: bytes, encoding: Encoding) -> bytes | str:
    """A message of the handshake as its WebSocket message."""
    return data if encoding == "msgpack" else data.decode()


def as_bytes(frame: bytes | str) -> bytes:
    """And back."""
    return frame if isinstance(frame, bytes) else frame.encode()
