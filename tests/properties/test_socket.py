"""The short way through our WebSocket gives the application what websockets alone would give it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from voice_server.web.socket import MAX_TAKEN, BoundedWebSocket, Unread
from voice_server.web.stream_tokens import SocketChannel

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A transport that keeps what is written, but for its opening handshake."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def opened(kind: type[WebSocketsSansIOProtocol]) -> tuple[WebSocketsSansIOProtocol, Wire]:
    """A connection after its handshake, with nobody who takes its messages."""

    async def accept(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    config = uvicorn.Config(accept, log_config=None, ws_max_size=300, ws_per_message_deflate=False)
    config.load()
    socket, wire = kind(config, ServerState(), {}), Wire()
    socket.connection_made(wire)
    socket.data_received(REQUEST)
    while not socket.handshake_complete:
        await asyncio.sleep(0)
    wire.sent = b""
    return socket, wire


async def heard(
    kind: type[WebSocketsSansIOProtocol], pieces: list[bytes]
) -> tuple[list[Any], list[Any]]:
    """What the application is told, and the rest of what can be seen."""
    socket, wire = await opened(kind)
    for piece in pieces:
        if not wire.is_closed:
            socket.data_received(piece)
    queue: Any = socket.queue
    said = list(queue if isinstance(queue, Unread) else queue._queue)
    for task in socket.tasks:
        task.cancel()
    socket.stop_keepalive()
    messages = [message for message in said if message["type"] == "websocket.receive"]
    return messages, [said[len(messages) :], wire.sent, wire.is_closed]


FRAMES = st.one_of(
    st.text(max_size=40).map(lambda text: Frame(Opcode.TEXT, text.encode())),
    st.builds(
        Frame,
        st.sampled_from(list(Opcode)),
        st.one_of(st.binary(max_size=140), st.just(bytes(301))),
        fin=st.booleans(),
        rsv1=st.sampled_from([False] * 9 + [True]),
    ),
)


def masked(frame: Frame, is_masked: bool) -> bytes:
    # websockets will not make what no peer should send; what it makes of a legal one is changed.
    legal = Frame(Opcode.BINARY, frame.data).serialize(mask=is_masked)
    return bytes([(0x80 * frame.fin) | (0x40 * frame.rsv1) | frame.opcode]) + legal[1:]


@given(
    frames=st.lists(st.tuples(FRAMES, st.sampled_from([True] * 9 + [False])), max_size=8),
    cuts=st.lists(st.integers(0, 1200), max_size=6),
)
def test_every_stream_of_frames_however_it_is_cut_is_taken_as_by_websockets_alone(
    frames: list[tuple[Frame, bool]], cuts: list[int]
) -> None:
    stream, ends = b"", []
    for frame, is_masked in frames:
        stream += masked(frame, is_masked)
        ends.append(len(stream))
    edges = {0, len(stream), *(cut for cut in cuts if cut < len(stream))}

    def pieces(edges: set[int]) -> list[bytes]:
        return [stream[a:b] for a, b in itertools.pairwise(sorted(edges))]

    async def run() -> None:
        ours, seen = await heard(BoundedWebSocket, pieces(edges))
        theirs, expected = await heard(WebSocketsSansIOProtocol, pieces(edges))
        whole, frame_by_frame = await heard(WebSocketsSansIOProtocol, pieces(edges.union(ends)))
        # Where a mistake follows in the same read, uvicorn forgets the messages before it, and
        # does not tell what was wrong with one of them.
        assert seen in (expected, frame_by_frame)
        assert theirs == ours[: len(theirs)]
        assert ours == whole[: len(ours)]

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 3])
def test_short_texts_do_not_pass_through_the_parser(count: int) -> None:
    async def run() -> None:
        socket, _ = await opened(BoundedWebSocket)
        socket.conn.receive_data = None  # type: ignore[assignment,method-assign]
        socket.data_received(Frame(Opcode.TEXT, b'{"token": "Hi"}').serialize(mask=True) * count)
        received: list[Any] = [await socket.receive() for _ in range(count)]
        assert [message["text"] for message in received] == ['{"token": "Hi"}'] * count

    asyncio.run(run())


@given(
    wanted=st.lists(st.booleans(), min_size=1, max_size=2 * MAX_TAKEN),
    reads=st.lists(st.integers(1, MAX_TAKEN + 8), min_size=1, max_size=8),
    pause=st.integers(0, 3),
)
def test_what_is_taken_as_it_comes_and_what_is_read_keep_their_order(
    wanted: list[bool], reads: list[int], pause: int
) -> None:
    """``wanted``: which are taken if offered; ``reads``: how many come at once, by turns."""
    got: list[int] = []
    offered: list[int] = []

    def take(text: str) -> bool:
        offered.append(int(text))
        if wanted[int(text)]:
            got.append(int(text))
        return wanted[int(text)]

    async def read(socket: BoundedWebSocket) -> None:
        while True:
            got.append(int((await socket.receive())["text"]))
            for _ in range(pause):  # it is busy, and then nothing is offered
                await asyncio.sleep(0)

    async def run() -> None:
        socket, _ = await opened(BoundedWebSocket)
        assert isinstance(socket, BoundedWebSocket)
        socket.take = take
        reader = asyncio.create_task(read(socket))
        await asyncio.sleep(0)
        frames = [Frame(Opcode.TEXT, b"%d" % n).serialize(mask=True) for n in range(len(wanted))]
        for count in itertools.cycle(reads):
            socket.data_received(b"".join(frames[:count]))
            assert len(offered) <= MAX_TAKEN + 1
            offered.clear()
            del frames[:count]
            await asyncio.sleep(0)
            if not frames:
                break
        while len(got) < len(wanted):
            await asyncio.sleep(0)
        reader.cancel()

    asyncio.run(run())
    assert got == list(range(len(wanted)))


def test_a_channel_finds_the_short_way_in_its_scope() -> None:
    async def run() -> None:
        socket, wire = await opened(BoundedWebSocket)
        channel = SocketChannel(socket.scope, socket.receive, socket.send)
        taken: list[str] = []
        channel.listen(lambda text: bool(taken.append(text) or text == "mine"))
        received = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        for text in (b"mine", b"another's", b"late"):
            socket.data_received(Frame(Opcode.TEXT, text).serialize(mask=True))
        assert await received == "another's"
        assert taken == ["mine", "another's"]
        socket.send = None  # type: ignore[method-assign,assignment]
        await channel.send(b"sound")
        assert wire.sent == Frame(Opcode.BINARY, b"sound").serialize(mask=False)

    asyncio.run(run())


def test_what_a_refused_peer_still_sends_is_not_parsed() -> None:
    async def run() -> None:
        socket, wire = await opened(BoundedWebSocket)
        socket.data_received(Frame(Opcode.TEXT, bytes(301)).serialize(mask=True))
        assert wire.sent[2:4] == b"\x03\xf1"  # 1009
        socket.conn.receive_data = None  # type: ignore[assignment,method-assign]
        socket.data_received(Frame(Opcode.PING, b"").serialize(mask=True) * 1000)
        for task in socket.tasks:
            task.cancel()

    asyncio.run(run())


def test_what_is_sent_past_a_missing_pong_finds_the_client_gone() -> None:
    async def run() -> None:
        socket, _ = await opened(BoundedWebSocket)
        late: Any = {"type": "websocket.send", "bytes": b"late"}
        socket.pause_writing()
        sending = asyncio.create_task(socket.send(late))
        await asyncio.sleep(0)  # it waits for room
        socket.keepalive_timeout()
        socket.resume_writing()
        for attempt in (sending, socket.send(late)):
            with pytest.raises(OSError):
                await attempt

    asyncio.run(run())


def test_sound_is_framed_as_websockets_frames_it() -> None:
    async def run() -> None:
        socket, wire = await opened(BoundedWebSocket)
        for size in (0, 125, 126, 9_600, 65_535, 65_536):
            wire.sent = b""
            assert isinstance(socket, BoundedWebSocket)
            assert socket.write_sound(bytes(size))
            written, wire.sent = wire.sent, b""
            await socket.send({"type": "websocket.send", "bytes": bytes(size)})
            assert written == wire.sent == Frame(Opcode.BINARY, bytes(size)).serialize(mask=False)
        wire.sent = b""
        assert isinstance(socket, BoundedWebSocket)
        assert socket.write_sound(b"one", bytes(300))
        both = [Frame(Opcode.BINARY, each).serialize(mask=False) for each in (b"one", bytes(300))]
        assert wire.sent == b"".join(both)

    asyncio.run(run())
