"""The tunnel's core: who is let in, what opens, what a new link goes on with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pages import page, section
from voice_server.core.tunnel import (
    MAX_FRAME,
    SUBPROTOCOLS,
    WINDOW,
    Encoding,
    Link,
    Refused,
    Role,
    Session,
    TunnelBroken,
)
from voice_server.core.tunnel.codec import decode, encode
from voice_server.core.tunnel.handshake import NONE, BoxHandshake, RelayHandshake
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


def links(encoding: Encoding = "msgpack", salt: bytes = b"") -> tuple[Link, Link]:
    """The relay's end of a link, and the box's."""
    one, other = b"1" * 32 + salt, b"2" * 32 + salt
    return Link(one, other, encoding), Link(other, one, encoding)


def linked(encoding: Encoding = "msgpack") -> tuple[Session, Session]:
    """A relay's session and its box's, on a link."""
    ends = Session(Role.RELAY, b"s"), Session(Role.BOX, b"s")
    for end, link in zip(ends, links(encoding), strict=True):
        end.link_up(link, 0)
    return ends


def carry(sender: Session, receiver: Session) -> list[dict[str, Any]]:
    """Everything that the sender has to say; the records that came of it."""
    records = []
    while (frame := sender.next_frame()) is not None:
        records += receiver.receive(frame)
    return records


def relink(relay: Session, box: Session, salt: bytes) -> None:
    relay.link_down()
    box.link_down()
    mine, theirs = links(salt=salt)
    relay_received = relay.received
    relay.link_up(mine, box.received)
    box.link_up(theirs, relay_received)


# -- handshake -----------------------------------------------------------------------------------


def shake(
    key: str = "secret", keys: dict[str, tuple[str, ...]] | None = None, encoding: Encoding = "json"
) -> tuple[Link, Link]:
    relay = RelayHandshake(b"r" * 32, encoding)
    box = BoxHandshake(b"b" * 32, "home", key, encoding)
    answer = relay.check(
        box.answer(relay.challenge(), NONE, 0), {"home": ("secret",)} if keys is None else keys
    )
    assert (answer.name, answer.session, answer.received) == ("home", NONE, 0)
    welcome, relay_link = relay.welcome(b"session", 0)
    session, received, box_link = box.finish(welcome)
    assert (session, received) == (b"session", 0)
    return relay_link, box_link


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_who_knows_the_key_of_the_box_is_let_in(encoding: Encoding) -> None:
    relay, box = shake(encoding=encoding)
    assert relay.open(box.seal({"ack": 1, "x": b"\x00\xff"})) == {"ack": 1, "x": b"\x00\xff"}
    assert box.open(relay.seal({"ack": 2})) == {"ack": 2}


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("guess", {"home": ("secret",)}),
        ("secret", {"office": ("secret",)}),
        ("secret", {"home": ()}),
        ("secret", {}),
        ("", {"home": ("secret",)}),
    ],
)
def test_who_does_not_is_refused(key: str, keys: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(Refused) as caught:
        shake(key, keys)
    assert caught.value.code == "unauthorized"


def test_two_keys_are_good_while_one_replaces_the_other() -> None:
    for key in ("old", "new"):
        shake(key, {"home": ("old", "new")})


def test_a_box_hears_why_it_is_refused() -> None:
    relay, box = RelayHandshake(b"r" * 32, "json"), BoxHandshake(b"b" * 32, "home", "k", "json")
    box.answer(relay.challenge(), NONE, 0)
    with pytest.raises(Refused, match="taken") as caught:
        box.finish(relay.refuse(Refused("name_taken", "it is taken")))
    assert caught.value.code == "name_taken"


def test_an_answer_to_another_challenge_proves_nothing() -> None:
    box = BoxHandshake(b"b" * 32, "home", "secret", "msgpack")
    recorded = box.answer(RelayHandshake(b"r" * 32, "msgpack").challenge(), NONE, 0)
    with pytest.raises(Refused):
        RelayHandshake(b"R" * 32, "msgpack").check(recorded, {"home": ("secret",)})


def test_a_relay_that_does_not_know_the_key_is_not_believed() -> None:
    relay, box = RelayHandshake(b"r" * 32, "json"), BoxHandshake(b"b" * 32, "home", "k", "json")
    answer = box.answer(relay.challenge(), NONE, 0)
    with pytest.raises(Refused):
        relay.check(answer, {"home": ("other",)})
    welcome, _ = relay.welcome(b"session", 0)
    with pytest.raises(TunnelBroken, match="does not know the key"):
        box.finish(welcome)


@pytest.mark.parametrize(
    "nonce", [b"", b"short", b"b" * 32], ids=["empty", "short", "the box's own"]
)
def test_a_relay_cannot_choose_a_challenge_that_was_answered_before(nonce: bytes) -> None:
    box = BoxHandshake(b"b" * 32, "home", "k", "json")
    with pytest.raises(TunnelBroken):
        box.answer(RelayHandshake(nonce, "json").challenge(), NONE, 0)


def test_another_protocol_names_the_remedy() -> None:
    challenge = encode({"type": "challenge", "protocol": 9, "nonce": b"r" * 32}, "json")
    with pytest.raises(TunnelBroken, match="same version"):
        BoxHandshake(b"b" * 32, "home", "k", "json").answer(challenge, NONE, 0)


@pytest.mark.parametrize("changed", ["session", "received", "name"])
def test_nothing_of_an_answer_can_be_changed(changed: str) -> None:
    relay = RelayHandshake(b"r" * 32, "json")
    data = BoxHandshake(b"b" * 32, "home", "k", "json").answer(relay.challenge(), b"s", 5)
    message = decode(data, "json")
    message[changed] = {"session": b"t", "received": 6, "name": "hume"}[changed]
    with pytest.raises(Refused):
        relay.check(encode(message, "json"), {"home": ("k",), "hume": ("k",)})


# -- link ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
@pytest.mark.parametrize("mischief", ["twice", "left out", "moved", "back", "other link", "cut"])
def test_what_is_not_the_next_frame_does_not_open(encoding: Encoding, mischief: str) -> None:
    sender, receiver = links(encoding)
    frames = [sender.seal({"ack": n}) for n in range(3)]
    receiver.open(frames[0])
    bad = {
        "twice": frames[0],
        "left out": frames[2],
        "moved": frames[2],
        "back": receiver.seal({"ack": 1}),
        "other link": links(encoding, b"x")[0].seal({"ack": 1}),
        "cut": frames[1][:-1],
    }[mischief]
    with pytest.raises(TunnelBroken):
        receiver.open(bad)
    with pytest.raises(TunnelBroken, match="broken"):
        receiver.open(frames[1])


def test_a_frame_of_the_other_encoding_does_not_open() -> None:
    for encoding, frame in (("msgpack", "00" * 16 + "{}"), ("json", b"\0" * 20)):
        with pytest.raises(TunnelBroken):
            links(encoding)[1].open(frame)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x90", b"[]", b'{"a": {"base64": "?"}}', b'{"a": {"base64": 1}}']
)
def test_bytes_that_are_no_message_are_one_error(data: bytes) -> None:
    for encoding in ("msgpack", "json"):
        with pytest.raises(TunnelBroken):
            decode(data, encoding)  # type: ignore[arg-type]


# -- session -------------------------------------------------------------------------------------


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
    relay, box = linked()
    stream = relay.open(SCOPE)
    carry(relay, box)
    body = bytes(range(256)) * 300
    box.write(stream, {"type": "http.response.body", "body": body, "more_body": False})
    records = carry(box, relay)
    assert b"".join(record["body"] for record in records) == body
    assert [record["more_body"] for record in records] == [True] * (len(records) - 1) + [False]
    assert max(len(record["body"]) for record in records) == CHUNK


def say(number: int, data: bytes) -> tuple[int, dict[str, Any]]:
    return number, {"type": "websocket.send", "bytes": data}


def test_a_reader_that_takes_nothing_holds_up_its_own_stream_alone() -> None:
    relay, box = linked()
    slow, quick = relay.open(SOCKET), relay.open(SOCKET)
    carry(relay, box)
    for _ in range(2 * WINDOW // 8192):
        box.write(*say(slow, bytes(8192)))
    assert sum(len(record["bytes"]) for record in carry(box, relay)) == WINDOW
    assert not box.has_room(slow)
    box.write(*say(quick, b"hello"))
    [heard] = carry(box, relay)
    assert heard["stream"] == quick
    relay.taken(slow, WINDOW // 2)
    carry(relay, box)
    assert sum(len(record["bytes"]) for record in carry(box, relay)) == WINDOW // 2


def test_streams_take_turns() -> None:
    relay, box = linked()
    first, second = relay.open(SOCKET), relay.open(SOCKET)
    carry(relay, box)
    for _ in range(5):
        box.write(*say(first, bytes(6000)))
    box.write(*say(second, b"token"))
    frame = box.next_frame()
    assert frame is not None
    assert {record["stream"] for record in relay.receive(frame)} == {first, second}


def test_a_reset_overtakes_what_waits() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    for _ in range(2 * WINDOW // 8192):
        box.write(*say(stream, bytes(8192)))
    carry(box, relay)
    box.reset(stream, "over")
    assert [record["type"] for record in carry(box, relay)] == ["reset"]
    assert relay.streams == box.streams == ()


def test_what_crosses_the_end_of_its_stream_is_dropped() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    relay.reset(stream, "gone")
    box.write(*say(stream, b"late"))
    assert carry(box, relay) == []
    carry(relay, box)
    box.write(*say(stream, b"later"))
    assert box.next_frame() is None or carry(box, relay) == []


def test_a_new_link_goes_on_where_the_old_one_broke_off() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    heard = b""
    for number in range(40):
        box.write(*say(stream, bytes([number]) * 100))
        frame = box.next_frame()
        assert frame is not None
        if number % 7 == 3:
            relink(relay, box, bytes([number]))  # with the frame lost on its way
            heard += b"".join(record["bytes"] for record in carry(box, relay))
        else:
            heard += b"".join(record["bytes"] for record in relay.receive(frame))
    assert heard == b"".join(bytes([n]) * 100 for n in range(40))


def test_what_had_arrived_does_not_come_twice() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    box.write(*say(stream, b"once"))
    assert len(carry(box, relay)) == 1
    relink(relay, box, b"x")
    assert carry(box, relay) == []


def test_without_a_link_more_may_wait_and_then_goes_by_the_window() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    box.link_down()
    relay.link_down()
    written = 0
    while box.has_room(stream):
        box.write(*say(stream, bytes(65_536)))
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
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    for _ in range(100):
        box.write(*say(stream, b"x"))
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
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    box.write(*say(stream, b"x"))
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
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    box._streams[stream].window = 10 * WINDOW
    for _ in range(4):
        box.write(*say(stream, bytes(MAX_RECORD)))
    with pytest.raises(TunnelBroken, match="window"):
        carry(box, relay)


def test_empty_messages_do_not_pass_the_window_by() -> None:
    relay, box = linked()
    stream = relay.open(SOCKET)
    carry(relay, box)
    for _ in range(10_000):
        box.write(*say(stream, b""))
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
