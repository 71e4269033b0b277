"""The tunnel's sessions: what crosses, what a new link goes on with, what a peer may not do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pages import page, section
from tests.tunnelling import links
from voice_server.core.tunnel import (
    MAX_FRAME,
    SUBPROTOCOLS,
    WINDOW,
    Encoding,
    Role,
    Session,
    TunnelBroken,
)
from voice_server.core.tunnel.records import FIELDS, MAX_RECORD, check
from voice_server.core.tunnel.session import CHUNK, OUTAGE, PENDING

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "scheme": "http",
    "http_version": "1.1",
    "path": "/tts",
    "raw_path": b"/tts",
    "query_string": b"",
    "headers": [[b"host", b"relay"]],
    "client": ["127.0.0.1", 1],
}
SOCKET = {**SCOPE, "type": "websocket", "method": None, "subprotocols": []}


def linked(encoding: Encoding = "msgpack") -> tuple[Session, Session]:
    """A relay's session and its box's, on a link."""
    ends = Session(Role.RELAY, b"s"), Session(Role.BOX, b"s")
    for end, link in zip(ends, links(encoding), strict=True):
        end.link_up(link, 0)
    return ends


def opened(scope: dict[str, Any] = SOCKET) -> tuple[Session, Session, int]:
    """The two, and a stream that both know."""
    relay, box = linked()
    stream = relay.open(scope)
    carry(relay, box)
    return relay, box, stream


def carry(sender: Session, receiver: Session) -> list[dict[str, Any]]:
    """Everything that the sender has to say; the records that came of it."""
    records = []
    while (frame := sender.next_frame()) is not None:
        records += receiver.receive(frame)
    return records


def say(session: Session, stream: int, data: bytes, times: int = 1) -> None:
    for _ in range(times):
        session.write(stream, {"type": "websocket.send", "bytes": data})


def relink(relay: Session, box: Session, salt: bytes) -> None:
    relay.link_down()
    box.link_down()
    mine, theirs = links(salt=salt)
    relay_received = relay.received
    relay.link_up(mine, box.received)
    box.link_up(theirs, relay_received)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_request_crosses_and_its_answer_comes_back(encoding: Encoding) -> None:
    relay, box = linked(encoding)
    stream = relay.open(SCOPE)
    relay.write(stream, {"type": "http.request", "body": b"\x00\xff", "more_body": False})
    opened, asked = carry(relay, box)
    assert (opened["type"], opened["stream"], opened["scope"]) == ("open", stream, SCOPE)
    assert asked["body"] == b"\x00\xff"
    box.write(stream, {"type": "http.response.start", "status": 200, "headers": [[b"a", b"b"]]})
    box.write(stream, {"type": "http.response.body", "body": b"yes", "more_body": False})
    assert [record["type"] for record in carry(box, relay)] == [
        "http.response.start",
        "http.response.body",
    ]
    assert relay.streams == box.streams == ()


def test_a_long_body_goes_in_pieces_and_only_the_last_ends_it() -> None:
    relay, box, stream = opened(SCOPE)
    body = bytes(range(256)) * 300
    box.write(stream, {"type": "http.response.body", "body": body, "more_body": False})
    records = carry(box, relay)
    assert b"".join(record["body"] for record in records) == body
    assert [record["more_body"] for record in records] == [True] * (len(records) - 1) + [False]
    assert max(len(record["body"]) for record in records) == CHUNK


def test_a_reader_that_takes_nothing_holds_up_its_own_stream_alone() -> None:
    relay, box = linked()
    slow, quick = relay.open(SOCKET), relay.open(SOCKET)
    carry(relay, box)
    say(box, slow, bytes(8192), 2 * WINDOW // 8192)
    assert sum(len(record["bytes"]) for record in carry(box, relay)) == WINDOW
    assert not box.has_room(slow)
    say(box, quick, b"hello")
    [heard] = carry(box, relay)
    assert heard["stream"] == quick
    relay.taken(slow, WINDOW // 2)
    carry(relay, box)
    assert sum(len(record["bytes"]) for record in carry(box, relay)) == WINDOW // 2


def test_streams_take_turns() -> None:
    relay, box = linked()
    first, second = relay.open(SOCKET), relay.open(SOCKET)
    carry(relay, box)
    say(box, first, bytes(6000), 5)
    say(box, second, b"token")
    frame = box.next_frame()
    assert frame is not None
    assert {record["stream"] for record in relay.receive(frame)} == {first, second}


def test_a_reset_overtakes_what_waits() -> None:
    relay, box, stream = opened()
    say(box, stream, bytes(8192), 2 * WINDOW // 8192)
    carry(box, relay)
    box.reset(stream, "over")
    assert [record["type"] for record in carry(box, relay)] == ["reset"]
    assert relay.streams == box.streams == ()


def test_what_crosses_the_end_of_its_stream_is_dropped() -> None:
    relay, box, stream = opened()
    relay.reset(stream, "gone")
    say(box, stream, b"late")
    assert carry(box, relay) == []
    carry(relay, box)
    say(box, stream, b"later")
    assert box.next_frame() is None or carry(box, relay) == []


CLOSE: dict[str, Any] = {"type": "websocket.close", "code": 1000, "reason": ""}
LEFT: dict[str, Any] = {"type": "websocket.disconnect", "code": 1000, "reason": None}


def test_a_websocket_that_the_box_closed_ends_with_the_word_of_its_client() -> None:
    relay, box, stream = opened()
    say(box, stream, b"all")
    box.write(stream, CLOSE)
    assert [record["type"] for record in carry(box, relay)] == ["websocket.send", "websocket.close"]
    assert relay.streams == box.streams == (stream,)
    relay.write(stream, LEFT)
    assert [record["type"] for record in carry(relay, box)] == ["websocket.disconnect"]
    assert relay.streams == box.streams == ()


def test_what_a_client_says_past_the_close_does_not_hold_up_its_leaving() -> None:
    relay, box, stream = opened()
    for _ in range(2 * WINDOW // 8192):
        relay.write(stream, {"type": "websocket.receive", "bytes": bytes(8192)})
    box.write(stream, CLOSE)
    # The application took nothing, so the window is spent; what crossed the close is dropped.
    assert carry(relay, box) == []
    assert not relay.has_room(stream)
    carry(box, relay)
    assert relay.has_room(stream)
    relay.write(stream, {"type": "websocket.receive", "bytes": b"late"})
    relay.write(stream, LEFT)
    assert [record["type"] for record in carry(relay, box)] == ["websocket.disconnect"]
    assert relay.streams == box.streams == ()
    assert relay._pending_bytes == box._pending_bytes == 0


def test_a_client_that_left_before_the_close_came_has_left_once() -> None:
    relay, box, stream = opened()
    for _ in range(2 * WINDOW // 8192):
        relay.write(stream, {"type": "websocket.receive", "bytes": bytes(8192)})
    relay.write(stream, LEFT)  # behind what waits for the window
    carry(relay, box)
    box.write(stream, CLOSE)
    carry(box, relay)
    assert [record["type"] for record in carry(relay, box)] == ["websocket.disconnect"]
    assert relay.streams == box.streams == ()


@pytest.mark.parametrize("lost", ["close", "disconnect"])
def test_a_close_that_was_lost_with_its_link_comes_with_the_next(lost: str) -> None:
    relay, box, stream = opened()
    say(box, stream, b"all")
    box.write(stream, CLOSE)
    if lost == "close":
        box.next_frame()
        relink(relay, box, b"x")
    carry(box, relay)
    relay.write(stream, LEFT)
    if lost == "disconnect":
        relay.next_frame()
        relink(relay, box, b"y")
    assert [record["type"] for record in carry(relay, box)] == ["websocket.disconnect"]
    assert relay.streams == box.streams == ()


def test_behind_its_close_a_box_says_nothing() -> None:
    relay, box, stream = opened()
    box.write(stream, CLOSE)
    say(box, stream, b"more")
    assert [record["type"] for record in carry(box, relay)] == ["websocket.close"]
    box._streams[stream].is_closed = False
    say(box, stream, b"more")
    with pytest.raises(TunnelBroken, match="behind its close"):
        carry(box, relay)


def test_a_new_link_goes_on_where_the_old_one_broke_off() -> None:
    relay, box, stream = opened()
    heard = b""
    for number in range(40):
        say(box, stream, bytes([number]) * 100)
        frame = box.next_frame()
        assert frame is not None
        if number % 7 == 3:
            relink(relay, box, bytes([number]))  # with the frame lost on its way
            heard += b"".join(record["bytes"] for record in carry(box, relay))
        else:
            heard += b"".join(record["bytes"] for record in relay.receive(frame))
    assert heard == b"".join(bytes([n]) * 100 for n in range(40))


def test_what_had_arrived_does_not_come_twice() -> None:
    relay, box, stream = opened()
    say(box, stream, b"once")
    assert len(carry(box, relay)) == 1
    relink(relay, box, b"x")
    assert carry(box, relay) == []


def test_without_a_link_more_may_wait_and_then_goes_by_the_window() -> None:
    relay, box, stream = opened()
    box.link_down()
    relay.link_down()
    written = 0
    while box.has_room(stream):
        say(box, stream, bytes(65_536))
        written += 65_536
    assert written == OUTAGE > PENDING
    relink(relay, box, b"x")
    assert not box.has_room(stream)
    came = 0
    while records := carry(box, relay):
        count = sum(len(record["bytes"]) for record in records)
        assert count <= WINDOW
        came += count
        relay.taken(stream, count)
        carry(relay, box)
    assert came == written


def test_frames_are_kept_until_they_are_acknowledged() -> None:
    relay, box, stream = opened()
    for _ in range(100):
        say(box, stream, b"x")
        carry(box, relay)
        carry(relay, box)
    assert len(box._kept) < 40
    relay.acknowledge()
    carry(relay, box)
    assert not box._kept
    assert not box.can_resume(50)
    with pytest.raises(TunnelBroken, match="not kept"):
        box.link_up(links()[1], 50)


def test_a_goodbye_ends_the_session_before_anything_else() -> None:
    relay, box, stream = opened()
    say(box, stream, b"x")
    box.bye("the server ends")
    frame = box.next_frame()
    assert frame is not None
    assert relay.receive(frame) == [{"type": "bye", "reason": "the server ends"}]


# -- what a peer may not do ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"type": ["open"], "stream": 1},
        {"type": "nonsense", "stream": 1},
        {"type": "bye", "stream": 1},
        {"type": "http.response.start", "stream": 1, "status": 200, "headers": []},
        {"type": "http.request", "stream": 1, "body": "text", "more_body": False},
        {"type": "http.request", "stream": 1, "body": b"", "more_body": 0},
        {"type": "http.request", "stream": 0, "body": b"", "more_body": False},
        {"type": "http.request", "stream": True, "body": b"", "more_body": False},
        {"type": "http.request", "stream": 1, "body": bytes(MAX_RECORD + 1), "more_body": True},
        {"type": "websocket.receive", "stream": 1, "text": b"bytes"},
        {"type": "credit", "stream": 1, "bytes": 0},
        {"type": "credit", "stream": 1, "bytes": -1},
        {"type": "open", "stream": 1, "own": False, "scope": {**SCOPE, "type": "lifespan"}},
        {"type": "open", "stream": 1, "own": False, "scope": {**SCOPE, "method": None}},
        {"type": "open", "stream": 1, "own": False, "scope": {**SCOPE, "headers": [["a", "b"]]}},
        {"type": "open", "stream": 1, "own": False, "scope": {**SCOPE, "headers": [[b"a"]]}},
        {
            "type": "open",
            "stream": 1,
            "own": False,
            "scope": {**SCOPE, "headers": [[b"a", bytes(70_000)]]},
        },
        {"type": "open", "stream": 1, "own": False, "scope": {}},
        {"type": "open", "stream": 1, "scope": SCOPE},
    ],
)
def test_a_record_that_is_not_in_the_table_is_refused(record: object) -> None:
    with pytest.raises(TunnelBroken):
        check(record, Role.RELAY)


def test_every_kind_of_record_has_a_sender() -> None:
    for kind, (senders, _) in FIELDS.items():
        assert senders, kind


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ack": 1},
        {"ack": -1},
        {"ack": True},
        {"ack": 0, "number": 2, "records": []},
        {"ack": 0, "number": 0, "records": []},
        {"ack": 0, "number": 1},
        {"ack": 0, "number": 1, "records": [{"type": "credit", "stream": 1, "bytes": 1}]},
        {
            "ack": 0,
            "number": 1,
            "records": [{"type": "open", "stream": 2, "own": False, "scope": SCOPE}],
        },
    ],
)
def test_a_frame_that_does_not_fit_the_history_breaks_the_link(body: dict[str, Any]) -> None:
    box = Session(Role.BOX, b"s")
    mine, theirs = links()
    box.link_up(mine, 0)
    with pytest.raises(TunnelBroken):
        box.receive(theirs.seal(body))


def test_more_than_the_window_breaks_the_link() -> None:
    relay, box, stream = opened()
    box._streams[stream].window = 10 * WINDOW
    say(box, stream, bytes(MAX_RECORD), 4)
    with pytest.raises(TunnelBroken, match="window"):
        carry(box, relay)


def test_empty_messages_do_not_pass_the_window_by() -> None:
    relay, box, stream = opened()
    say(box, stream, b"", 10_000)
    carry(box, relay)
    assert relay._streams[stream].unread <= WINDOW
    assert len(box._streams[stream].pending) > 5_000


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_is_opened_together_makes_no_frame_that_is_too_long(encoding: Encoding) -> None:
    relay, box = linked(encoding)
    scope = {**SCOPE, "headers": [[b"x", b"\xff" * 65_000]], "raw_path": b"/" + b"%" * 60_000}
    for _ in range(60):
        relay.open({**scope, "path": "\x01" * 20_000})
    assert len(carry(relay, box)) == 60


def test_what_may_not_be_opened_is_refused_before_it_leaves() -> None:
    relay, _ = linked()
    with pytest.raises(TunnelBroken, match="headers"):
        relay.open({**SCOPE, "headers": [[b"x", bytes(70_000)]]})
    with pytest.raises(TunnelBroken, match="path"):
        relay.open({**SCOPE, "raw_path": bytes(40_000), "query_string": bytes(40_000)})
    assert relay.streams == ()


def test_credit_for_what_was_not_sent_breaks_the_link() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    relay._control.append({"type": "credit", "stream": stream, "bytes": 1})
    with pytest.raises(TunnelBroken, match="credit"):
        carry(relay, box)


def test_what_may_not_be_sent_is_refused_before_it_leaves() -> None:
    relay, _ = linked()
    stream = relay.open(SOCKET)
    with pytest.raises(TunnelBroken):
        relay.write(stream, {"type": "websocket.send", "bytes": b""})
    with pytest.raises(TunnelBroken):
        relay.write(stream, {"type": "websocket.receive", "bytes": bytes(MAX_RECORD + 1)})


def test_the_docs_say_who_may_send_which_record() -> None:
    text = section(page("protocol.md"), "## The tunnel")
    for kind, (senders, fields) in FIELDS.items():
        who = "both" if len(senders) > 1 else next(iter(senders)).value
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{kind}` | {who} |")]
        assert not [name for name in fields if f"`{name}`" not in row], kind
    assert not [name for name in SUBPROTOCOLS if f"`{name}`" not in text]
    for size in (WINDOW, MAX_RECORD, MAX_FRAME, CHUNK):
        assert f"{size:,} bytes" in text
