"""Who is there: both sides prove that they know the box's key, and neither sends it.

    relay ─ challenge{protocol, nonce} ─▶ box
    relay ◀─ answer{name, nonce, session, received, proof} ─ box
    relay ─ welcome{session, received, proof} ─▶ box        or refusal{code, reason}

A proof is HMAC-SHA-256 under the digest of the key over a label and everything that was agreed,
each part with its length before it. The nonces make every proof, and the keys of the link that
are derived in the same way, good for this one link: what somebody recorded opens nothing.
``session`` and ``received`` ask to go on with a session that an earlier link carried.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voice_server.core.tunnel.codec import Encoding, decode, encode
from voice_server.core.tunnel.errors import Refused, TunnelBroken
from voice_server.core.tunnel.link import Link

PROTOCOL = 3
NONCE_BYTES = 32
NONE = b""
"""The session of a box that has none to go on with."""
_MAX_NAME = 64
_MAX_MESSAGE = 4_096


@dataclass(frozen=True, slots=True)
class Answer:
    """What a box says that has proved who it is."""

    name: str
    session: bytes
    received: int


class RelayHandshake:
    """The relay's side. ``nonce``: 32 random bytes, used once."""

    def __init__(self, nonce: bytes, encoding: Encoding) -> None:
        self._nonce, self._encoding = nonce, encoding
        self._box_nonce = self._secret = b""

    def challenge(self) -> bytes:
        body = {"type": "challenge", "protocol": PROTOCOL, "nonce": self._nonce}
        return encode(body, self._encoding)

    def check(self, data: bytes, keys: Mapping[str, Iterable[str]]) -> Answer:
        """What the box answered. ``keys`` of each name; it must prove one of its own.

        Raises Refused, or TunnelBroken for bytes that are no answer.
        """
        message = _parse(data, "answer", self._encoding)
        name = _field(message, "name", str)
        nonce, proof = _field(message, "nonce", bytes), _field(message, "proof", bytes)
        session, received = _field(message, "session", bytes), _field(message, "received", int)
        if len(nonce) != NONCE_BYTES or len(name) > _MAX_NAME or not 0 <= received < 2**63:
            raise TunnelBroken("an answer that cannot be one")
        agreed = (self._nonce, nonce, name.encode(), session, _number(received))
        # A name that nobody has costs as much time as one with a wrong key.
        for key in keys.get(name) or (self._nonce.hex(),):
            secret = _secret(key)
            if hmac.compare_digest(proof, _mac(secret, b"box", *agreed)) and name in keys:
                self._box_nonce, self._secret = nonce, secret
                return Answer(name, session, received)
        raise Refused("unauthorized", "no box of this name has this key")

    def refuse(self, refused: Refused) -> bytes:
        body = {"type": "refusal", "code": refused.code, "reason": str(refused)}
        return encode(body, self._encoding)

    def welcome(self, session: bytes, received: int) -> tuple[bytes, Link]:
        """Let the box in that ``check`` found. ``received``: frames of that session, so far."""
        agreed = (self._nonce, self._box_nonce, session, _number(received))
        proof = _mac(self._secret, b"relay", *agreed)
        body = {"type": "welcome", "session": session, "received": received, "proof": proof}
        box_key, relay_key = _link_keys(self._secret, self._nonce, self._box_nonce)
        return encode(body, self._encoding), Link(relay_key, box_key, self._encoding)


class BoxHandshake:
    """The box's side. ``nonce``: 32 random bytes, used once."""

    def __init__(self, nonce: bytes, name: str, key: str, encoding: Encoding) -> None:
        self._nonce, self._name, self._encoding = nonce, name, encoding
        self._secret = _secret(key)
        self._relay_nonce = b""

    def answer(self, challenge: bytes, session: bytes, received: int) -> bytes:
        """The answer to a challenge. ``session``: the one to go on with, or NONE."""
        message = _parse(challenge, "challenge", self._encoding)
        if message.get("protocol") != PROTOCOL:
            raise TunnelBroken(
                f"the relay speaks tunnel protocol {message.get('protocol')!r:.20}, this server "
                f"{PROTOCOL}: run the same version on both"
            )
        nonce = _field(message, "nonce", bytes)
        # A relay that chose it short, or chose ours, could play back a proof of another day.
        if len(nonce) != NONCE_BYTES or nonce == self._nonce:
            raise TunnelBroken("a challenge that cannot be one")
        self._relay_nonce = nonce
        agreed = (nonce, self._nonce, self._name.encode(), session, _number(received))
        body = {
            "type": "answer",
            "name": self._name,
            "nonce": self._nonce,
            "session": session,
            "received": received,
            "proof": _mac(self._secret, b"box", *agreed),
        }
        return encode(body, self._encoding)

    def finish(self, welcome: bytes) -> tuple[bytes, int, Link]:
        """The session, how many of its frames the relay has, and the link.

        Raises Refused; TunnelBroken where the relay does not prove that it knows the key.
        """
        message = _parse(welcome, ("welcome", "refusal"), self._encoding)
        if message["type"] == "refusal":
            raise Refused(_field(message, "code", str)[:40], _field(message, "reason", str)[:200])
        session, received = _field(message, "session", bytes), _field(message, "received", int)
        if not 0 <= received < 2**63:
            raise TunnelBroken("a welcome that cannot be one")
        agreed = (self._relay_nonce, self._nonce, session, _number(received))
        proof = _mac(self._secret, b"relay", *agreed)
        if not hmac.compare_digest(_field(message, "proof", bytes), proof):
            raise TunnelBroken("the relay does not know the key of this box")
        box_key, relay_key = _link_keys(self._secret, self._relay_nonce, self._nonce)
        return session, received, Link(box_key, relay_key, self._encoding)


def _secret(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _link_keys(secret: bytes, relay_nonce: bytes, box_nonce: bytes) -> tuple[bytes, bytes]:
    """The keys of what the box sends and of what the relay sends."""
    nonces = (relay_nonce, box_nonce)
    return _mac(secret, b"box frames", *nonces), _mac(secret, b"relay frames", *nonces)


def _mac(secret: bytes, *parts: bytes) -> bytes:
    # With its length before each part, no two lists of parts are the same bytes.
    message = b"".join(_number(len(part)) + part for part in parts)
    return hmac.digest(secret, message, "sha256")


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _parse(data: bytes, kind: str | tuple[str, ...], encoding: Encoding) -> dict[str, Any]:
    if len(data) > _MAX_MESSAGE:
        raise TunnelBroken("a message of the handshake is short")
    message = decode(data, encoding)
    if message.get("type") not in ((kind,) if isinstance(kind, str) else kind):
        raise TunnelBroken(f"expected {kind}, got {message.get('type')!r:.40}")
    return message


def _field(message: dict[str, Any], name: str, cls: type[Any]) -> Any:
    value = message.get(name)
    if type(value) is not cls:
        raise TunnelBroken(f"{name}: expected {cls.__name__}")
    return value
