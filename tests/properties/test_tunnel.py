"""The tunnel as properties: no frame opens that is not the next one, and links that drop at any
moment change nothing of what arrives.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.tunnelling import links
from tests.unit.test_tunnel import SOCKET
from voice_server.core.tunnel import Encoding, Role, Session, TunnelBroken
from voice_server.core.tunnel.codec import decode, encode
from voice_server.core.tunnel.handshake import NONE, BoxHandshake, RelayHandshake
from voice_server.core.tunnel.link import Link
from voice_server.core.tunnel.records import size

ENCODINGS = st.sampled_from(["msgpack", "json"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), ENCODINGS)
def test_a_message_comes_out_as_it_went_in(message, encoding: Encoding) -> None:
    if encoding == "json" and message.keys() == {"base64"}:
        return
    assert decode(encode(message, encoding), encoding) == message


def sealed(encoding: Encoding) -> tuple[list[bytes | str], Link]:
    sender, receiver = links(encoding)
    return [sender.seal({"ack": n, "records": [bytes([n]) * 20]}) for n in range(6)], receiver


@settings(max_examples=500)
@given(ENCODINGS, st.integers(0, 5), st.data())
def test_a_mutated_frame_never_opens(encoding: Encoding, place: int, data: st.DataObject) -> None:
    frames, receiver = sealed(encoding)
    for frame in frames[:place]:
        receiver.open(frame)
    frame = frames[place]
    raw = bytearray(frame if isinstance(frame, bytes) else frame.encode())
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    at = data.draw(st.integers(0, len(raw) - 1))
    match kind:
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        case "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        case "append":
            raw += data.draw(st.binary(min_size=1, max_size=40))
    changed = bytes(raw) if isinstance(frame, bytes) else raw.decode("utf-8", "replace")
    if isinstance(changed, str) and changed.lower() == str(frame).lower():
        return  # a digit of the tag as a capital letter: the same tag
    with pytest.raises(TunnelBroken):
        receiver.open(changed)


@settings(max_examples=300)
@given(ENCODINGS, st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_frames_open_in_their_order_alone(encoding: Encoding, order: list[int]) -> None:
    frames, receiver = sealed(encoding)
    opened = 0
    for place in order:
        if place == opened:
            assert receiver.open(frames[place])["ack"] == place
            opened += 1
            continue
        with pytest.raises(TunnelBroken):
            receiver.open(frames[place])
        return


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200), ENCODINGS)
def test_any_frame_is_refused_that_nobody_sealed(frame: bytes | str, encoding: Encoding) -> None:
    session = Session(Role.BOX, b"s")
    session.link_up(links(encoding)[1], 0)
    with pytest.raises(TunnelBroken):
        session.receive(frame)


@settings(max_examples=200)
@given(st.binary(max_size=300), ENCODINGS)
def test_any_bytes_of_a_handshake_are_a_documented_error(data: bytes, encoding: Encoding) -> None:
    relay = RelayHandshake(b"r" * 32, encoding)
    box = BoxHandshake(b"b" * 32, "home", "k", encoding)
    with pytest.raises(TunnelBroken):
        relay.check(data, {"home": ("k",)})
    with pytest.raises(TunnelBroken):
        box.answer(data, NONE, 0)
    with pytest.raises(TunnelBroken):
        box.finish(data)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["relay", "box"]), st.integers(0, 3), st.binary(max_size=9), st.sampled_from([1, 9_999])),
        st.tuples(st.just("carry"), st.sampled_from(["relay", "box"]), st.integers(1, 4)),
        st.tuples(st.just("take"), st.sampled_from(["relay", "box"]), st.integers(0, 3)),
        st.tuples(st.just("end"), st.sampled_from(["relay", "box"]), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.booleans()),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=300)
@given(STEPS)
def test_every_stream_hears_all_in_order_however_often_the_link_drops(steps) -> None:
    """With frames lost on their way at each drop, and with none. A side that has ended says no
    more, and hears no more when the other has ended too; a client that left hears nothing.
    """
    world = World()
    for step in steps:
        match step:
            case ("say", who, stream, data, times):
                world.say(who, stream, data * times)
            case ("carry", who, count):
                world.carry(who, count)
            case ("take", who, stream):
                world.take(who, stream)
            case ("end", who, stream):
                world.end(who, stream)
            case ("drop", loses):
                world.drop(loses=loses)
    world.drop(loses=True)
    world.settle()
    for (who, stream), heard in world.heard.items():
        # To a side that has ended it may have been cut short, and never is anything else.
        whole, is_cut = world.said[who, stream], (other(who), stream) in world.ended
        assert whole.startswith(heard) if is_cut else heard == whole
    for who, stream in world.ended:
        # Who has left need not hear that the box closed as well.
        if who == "relay" or ("relay", stream) not in world.ended:
            assert (who, stream) in world.ends_heard
    left = {stream for who, stream in world.ended if who == "relay"}
    for end in world.ends.values():
        assert set(end.streams) == {1, 2, 3, 4} - left
    # Who was closed and has yet to leave does so now, and nothing is left of any stream.
    for stream in range(4):
        world.end("relay", stream)
    world.settle()
    assert all(not end.streams and not end._pending_bytes for end in world.ends.values())


def other(who: str) -> str:
    return "box" if who == "relay" else "relay"


class World:
    """Two ends, four streams, and a wire that may lose what is on it with the link."""

    def __init__(self) -> None:
        self.ends = {"relay": Session(Role.RELAY, b"s"), "box": Session(Role.BOX, b"s")}
        self.links = 0
        self.wire: dict[str, list[bytes | str]] = {"relay": [], "box": []}
        self.said: dict[tuple[str, int], bytes] = {}
        self.heard: dict[tuple[str, int], bytes] = {}
        self.untaken: dict[tuple[str, int], int] = {}
        self.ended: set[tuple[str, int]] = set()
        self.ends_heard: set[tuple[str, int]] = set()
        self.link()
        for _ in range(4):
            self.ends["relay"].open(SOCKET)
        self.carry("relay", 10)

    def link(self) -> None:
        self.links += 1
        relay, box = self.ends.values()
        mine, theirs = links(salt=self.links.to_bytes(4, "big"))
        received = relay.received
        relay.link_up(mine, box.received)
        box.link_up(theirs, received)

    def say(self, who: str, stream: int, data: bytes) -> None:
        key = (who, stream + 1)
        if key in self.ended:
            return
        kind = "websocket.receive" if who == "relay" else "websocket.send"
        self.ends[who].write(stream + 1, {"type": kind, "bytes": data})
        self.said[key] = self.said.get(key, b"") + data
        self.heard.setdefault(key, b"")
        if (frame := self.ends[who].next_frame()) is not None:
            self.wire[who].append(frame)

    def end(self, who: str, stream: int) -> None:
        """The box closes a WebSocket, or its client leaves: once."""
        key = (who, stream + 1)
        if key in self.ended:
            return
        self.ended.add(key)
        kind = "websocket.disconnect" if who == "relay" else "websocket.close"
        self.ends[who].write(stream + 1, {"type": kind, "code": 1000, "reason": ""})

    def carry(self, who: str, count: int) -> None:
        sender, receiver = self.ends[who], self.ends[other(who)]
        for _ in range(count):
            if (frame := sender.next_frame()) is not None:
                self.wire[who].append(frame)
            if not self.wire[who]:
                return
            for record in receiver.receive(self.wire[who].pop(0)):
                key = (who, record.get("stream", 0))
                if record["type"] in ("websocket.close", "websocket.disconnect"):
                    assert key not in self.ends_heard, "an end comes once"
                    self.ends_heard.add(key)
                elif record["type"].startswith("websocket."):
                    assert key not in self.ends_heard, "nothing comes behind an end"
                    self.heard[key] += record["bytes"]
                    self.untaken[key] = self.untaken.get(key, 0) + size(record)

    def take(self, who: str, stream: int) -> None:
        """A reader takes all that has come from ``who``, so that more may come."""
        if count := self.untaken.pop((who, stream + 1), 0):
            self.ends[other(who)].taken(stream + 1, count)

    def settle(self) -> None:
        """Everybody takes everything, until nothing is on its way."""
        while any(end.has_news for end in self.ends.values()) or any(self.wire.values()):
            for who in self.ends:
                self.carry(who, 1000)
                for stream in range(4):
                    self.take(who, stream)

    def drop(self, *, loses: bool) -> None:
        if not loses:
            for who in self.wire:
                while self.wire[who]:
                    self.carry(who, 1)
        for end in self.ends.values():
            end.link_down()
        self.wire = {"relay": [], "box": []}
        self.link()
