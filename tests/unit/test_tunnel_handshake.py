"""The tunnel before its session: who is let in, and what opens."""

from __future__ import annotations

import pytest

from tests.tunnelling import links
from voice_server.core.tunnel import Encoding, Link, Refused, TunnelBroken
from voice_server.core.tunnel.codec import decode, encode
from voice_server.core.tunnel.handshake import NONE, BoxHandshake, RelayHandshake

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
