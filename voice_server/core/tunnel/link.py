"""One WebSocket of a tunnel: each frame is sealed with a key and its place in the order.

    frame = tag (16 bytes) ‖ body              msgpack: a binary message
    frame = tag (32 hexadecimal digits) body   JSON: a text message

The tag is keyed BLAKE2b (RFC 7693) of 128 bits over the frame's number on this link, which is not
sent, and the body; as in TLS 1.3 (RFC 8446, 5.3) both ends count. So a frame that was
changed, repeated, left out or moved does not open, nor does one of another link, whose keys are
others. What is secret is for TLS to hide.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from voice_server.core.tunnel.codec import Encoding, decode, encode
from voice_server.core.tunnel.errors import TunnelBroken

MAX_FRAME = 1 << 21
"""Bytes. The longest record is a message of a WebSocket; JSON can make six times as much of it."""
_TAG = 16


class Link:
    """Seals what is sent and opens what comes. Each direction has a key and a counter."""

    def __init__(self, seal_key: bytes, open_key: bytes, encoding: Encoding) -> None:
        self.encoding: Encoding = encoding
        self._seal_key, self._open_key = seal_key, open_key
        self._sealed = self._opened = 0
        self._is_broken = False

    def seal(self, body: dict[str, Any]) -> bytes | str:
        """The next frame: bytes for msgpack, text for JSON."""
        data = encode(body, self.encoding)
        tag = _tag(self._seal_key, self._sealed, data)
        self._sealed += 1
        return tag + data if self.encoding == "msgpack" else tag.hex() + data.decode()

    def open(self, frame: bytes | str) -> dict[str, Any]:
        """The body of the next frame. Raises TunnelBroken; nothing opens after that."""
        if self._is_broken:
            raise TunnelBroken("the link is broken")
        try:
            tag, data = self._parts(frame)
            if not hmac.compare_digest(tag, _tag(self._open_key, self._opened, data)):
                raise TunnelBroken(f"frame {self._opened} is not what was sent at this place")
            body = decode(data, self.encoding)
        except TunnelBroken:
            self._is_broken = True
            raise
        self._opened += 1
        return body

    def _parts(self, frame: bytes | str) -> tuple[bytes, bytes]:
        if len(frame) > MAX_FRAME:
            raise TunnelBroken(f"a frame has at most {MAX_FRAME} bytes")
        if self.encoding == "msgpack":
            if not isinstance(frame, bytes):
                raise TunnelBroken("expected a binary frame")
            return frame[:_TAG], frame[_TAG:]
        if not isinstance(frame, str):
            raise TunnelBroken("expected a text frame")
        try:
            return bytes.fromhex(frame[: 2 * _TAG]), frame[2 * _TAG :].encode()
        except ValueError:
            raise TunnelBroken("a text frame begins with its tag in hexadecimal") from None


def _tag(key: bytes, number: int, data: bytes) -> bytes:
    # For a token a third of the time of HMAC-SHA-256, and no more for sound.
    mac = hashlib.blake2b(number.to_bytes(8, "big"), key=key, digest_size=_TAG)
    mac.update(data)
    return mac.digest()
