"""Frames of WebSockets, however the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from voice_server.web.frames import BINARY, TEXT, FrameReader, frame

MAX_SIZE = 70_000
PAYLOADS = st.sampled_from([0, 1, 125, 126, 127, 4_000, 65_535, 65_536, MAX_SIZE]).map(bytes)
WHOLE = st.builds(Frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), PAYLOADS)
CONTROL = st.builds(Frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


@st.composite
def fragments(draw: st.DrawFn) -> list[Frame]:
    """One message in pieces, with control frames between."""
    pieces = [Frame(draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY])), b"begin", fin=False)]
    for _ in range(draw(st.integers(0, 3))):
        pieces.append(draw(st.one_of(CONTROL, st.just(Frame(Opcode.CONT, b"", fin=False)))))
    return [*pieces, Frame(Opcode.CONT, b"end")]


MESSAGES = st.lists(st.one_of(WHOLE.map(lambda f: [f]), CONTROL.map(lambda f: [f]), fragments()))


@given(MESSAGES, st.lists(st.integers(1, 100_000), max_size=12), st.booleans())
def test_whole_messages_come_out_and_all_else_as_it_was(
    messages: list[list[Frame]], cuts: list[int], is_masked: bool
) -> None:
    expected: list[tuple[int, bytes]] = []
    sent = b""
    for message in messages:
        for one in message:
            raw = one.serialize(mask=is_masked)
            sent += raw
            is_whole = one.opcode in (Opcode.TEXT, Opcode.BINARY) and one.fin
            first = TEXT if one.opcode is Opcode.TEXT else BINARY
            expected.append((first, bytes(one.data)) if is_whole else (0, raw))
    reader = FrameReader(is_masked=is_masked, max_size=MAX_SIZE)
    found = []
    for cut in [*cuts, len(sent) or 1]:
        if data := sent[:cut]:
            reader.feed(data)
        sent = sent[cut:]
        while (one_found := reader.next()) is not None:
            found.append(one_found)
    assert found == expected


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_whatever_is_no_frame_comes_out_in_its_order(pieces: list[bytes]) -> None:
    reader = FrameReader(is_masked=True, max_size=100)
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (one := reader.next()) is not None:
            found.append(one)
    sent = b"".join(pieces)
    raw = b"".join(data for first, data in found if not first)
    assert len(raw) <= len(sent)
    if all(not first for first, _ in found):
        assert sent.startswith(raw)


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_frame_that_is_too_long_is_left_to_the_library(is_masked: bool) -> None:
    reader = FrameReader(is_masked=is_masked, max_size=10)
    header = Frame(Opcode.BINARY, bytes(11)).serialize(mask=is_masked)[:7]
    reader.feed(header)
    assert reader.next() == (0, header)
    reader.feed(b"\x82\x00")
    assert reader.next() == (0, b"\x82\x00")
    assert reader.next() is None


@given(PAYLOADS, st.booleans(), st.sampled_from([TEXT, BINARY]))
def test_a_frame_that_was_made_is_read(payload: bytes, is_masked: bool, first: int) -> None:
    reader = FrameReader(is_masked=is_masked, max_size=MAX_SIZE)
    made = frame(first, payload, is_masked=is_masked)
    reader.feed(made)
    assert reader.next() == (first, payload)
    opcode = Opcode.TEXT if first == TEXT else Opcode.BINARY
    if not is_masked:  # a mask is chance
        assert made == Frame(opcode, payload).serialize(mask=False)
