"""One end of a tunnel at work: carries a session over a wire, and lends its streams out.

wire ─▶ session ─▶ stream ─▶ who reads it        at once, in one turn of the event loop
who writes ─▶ session ─┬─▶ flush ─▶ wire         once in a turn, for all that was written in it
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from voice_server.core.tunnel import Encoding, Link, Record, Session
from voice_server.core.tunnel.records import CLOSE, is_last, size
from voice_server.core.tunnel.session import CHUNK
from voice_server.relay.wire import Data, LinkLost, Wire

# What was written in one turn of the event loop begins to arrive while most of it is still made
# into frames: the first sound of a sentence, for one.
_FIRST_FRAME = 1 << 11


class SessionOver(Exception):
    """The peer has ended the session."""


class StreamOver(OSError):
    """The stream ended while somebody wanted to send: ASGI's word for a peer that is gone."""


class Stream:
    """One stream of a session. ``reason``: why it was cut off, if it was.

    ``on_change`` is called when a record came, when there is room again, and when it is over.
    Tasks await ``receive`` and ``send`` instead.
    """

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self.number = number
        self.is_over = False
        self.is_closed = False  # we have closed it, and may hear how the peer took it
        self.reason = ""
        self.on_change: Callable[[], None] | None = None
        self._endpoint = endpoint
        self._inbox: deque[Record] = deque()
        self._waiters: list[asyncio.Future[None]] = []

    # -- reading -----------------------------------------------------------------------------------

    def take(self) -> Record | None:
        """The next record that has come, if one has."""
        if not self._inbox:
            return None
        record = self._inbox.popleft()
        if held := size(record):
            self._endpoint.session.taken(self.number, held)
            self._endpoint.wake()
        return record

    async def receive(self) -> Record | None:
        """The next record; None when the stream is over."""
        while (record := self.take()) is None:
            if self.is_over:
                return None
            await self._change()
        return record

    # -- writing -----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether the writer may go on. Who finds that it may not is told when it may."""
        if self.is_over or self._endpoint.session.has_room(self.number):
            return True
        self._endpoint.waiting.add(self)
        return False

    def write(self, record: Record) -> None:
        """Send, however much waits already. Raises StreamOver."""
        if self.is_over or self.is_closed:
            raise StreamOver(self.reason or "the stream is over")
        self._endpoint.session.write(self.number, record)
        self.is_closed = record["type"] == CLOSE
        if is_last(record):
            self.end()
        self._endpoint.wake()

    async def send(self, record: Record) -> None:
        """Send, and wait while too much waits already. Raises StreamOver."""
        self.write(record)
        while not self.has_room:
            await self._change()

    def reset(self, reason: str) -> None:
        """End it now, from this side."""
        if not self.is_over:
            self._endpoint.session.reset(self.number, reason)
            self._endpoint.wake()
            self.end(reason)

    def leave(self) -> None:
        """Read no more of it. What was written still goes, if it was closed; else it is reset."""
        if self.is_closed:
            self.end()
        else:
            self.reset("the answer broke off")

    # -- the endpoint calls ------------------------------------------------------------------------

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
        else:
            self.changed()

    def end(self, reason: str = "") -> None:
        """Nothing more comes or goes; who waits is told."""
        self.is_over, self.reason = True, self.reason or reason
        self._endpoint.streams.pop(self.number, None)
        self._endpoint.waiting.discard(self)
        self.changed()

    def changed(self) -> None:
        """Tell whoever waits for something that it may have come."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():  # else its task was cancelled
                    waiter.set_result(None)
        if self.on_change is not None:
            self.on_change()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


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
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._flushing: asyncio.Handle | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._heard_at = 0.0
        self._limit = _FIRST_FRAME  # bytes of the next frame

    def open(self, scope: Record, *, own: bool = False) -> Stream:
        """Begin a stream; the relay's side only."""
        stream = Stream(self, self.session.open(scope, own=own))
        self.streams[stream.number] = stream
        self.wake()
        return stream

    def wake(self) -> None:
        """There may be something to send: it goes when all have run that run just now."""
        if self._flushing is None and self.session.has_news:
            self._flushing = self._loop.call_soon(self._flush)

    def leave(self, reason: str) -> None:
        """Say goodbye, ahead of all else; ``run`` then raises SessionOver."""
        self.session.bye(reason)
        self.wake()

    def abandon(self, reason: str) -> None:
        """The session is over: so is every stream."""
        for stream in list(self.streams.values()):
            stream.end(reason)

    async def run(self, link: Link, peer_received: int, wire: Wire) -> None:
        """Carry the session over ``wire``. Never returns.

        Raises LinkLost, SessionOver, TunnelBroken. The caller closes the wire.
        """
        self.session.link_up(link, peer_received)
        self._wire, self._heard_at = wire, time.monotonic()
        self._ended = self._loop.create_future()
        watchers = [asyncio.create_task(work) for work in (_lose(wire), self._watch())]
        ends: list[asyncio.Future[None]] = [self._ended, *watchers]
        try:
            self._release()  # there is less room for who waits than there was without a link
            wire.listen(self._received, self.wake)
            self.wake()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in ends:
                if ended.done():
                    ended.result()
        finally:
            self.session.link_down()
            self._wire = None
            if not self._ended.done():
                self._ended.cancel()
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            self._release()

    def _received(self, frame: Data) -> None:
        if self._ended.done():
            return
        try:
            records = self.session.receive(frame)
            self._heard_at = time.monotonic()
            for record in records:
                self._take(record)
        except Exception as exc:
            # What the peer did wrong, or we: it is the end of the link, and of nothing else.
            self._ended.set_exception(exc)
            return
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

    def _flush(self) -> None:
        self._flushing = None
        wire = self._wire
        if wire is None or self._ended.done():
            return
        frame = self.session.next_frame(self._limit) if wire.is_writable else None
        if frame is None:
            self._limit = _FIRST_FRAME
        else:
            wire.write(frame)
            if self.session.is_over:
                self._ended.set_exception(SessionOver("we said goodbye"))
                return
            # One frame in a turn of the loop, which sends it at its end: the peer takes it while we
            # make the next.
            self._limit = min(4 * self._limit, CHUNK)
            if self.session.has_news:
                self.wake()
            else:
                self._limit = _FIRST_FRAME
        if self.waiting:
            self._release()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._keepalive)
            silent = time.monotonic() - self._heard_at
            if silent > 3 * self._keepalive:
                raise LinkLost(f"nothing was heard for {silent:.0f} s")
            self.session.acknowledge()
            self.wake()

    def _release(self) -> None:
        """Tell the writers that have room again."""
        for stream in [s for s in self.waiting if self.session.has_room(s.number)]:
            self.waiting.discard(stream)
            stream.changed()


async def _lose(wire: Wire) -> None:
    raise LinkLost(await wire.closed())


def as_frame(data: bytes, encoding: Encoding) -> bytes | str:
    """A message of the handshake as its WebSocket message."""
    return data if encoding == "msgpack" else data.decode()


def as_bytes(frame: bytes | str) -> bytes:
    """And back."""
    return frame if isinstance(frame, bytes) else frame.encode()
