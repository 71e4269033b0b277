"""Maps as bytes of msgpack, or as JSON text in which bytes are ``{"base64": "…"}``.

The WebSocket's subprotocol says which: a box offers, the relay takes the first that it knows.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

import msgpack

from voice_server.core.tunnel.errors import TunnelBroken

Encoding = Literal["msgpack", "json"]
SUBPROTOCOLS: dict[str, Encoding] = {
    "voice-tunnel-3.msgpack": "msgpack",
    "voice-tunnel-3.json": "json",
}
"""WebSocket subprotocol → encoding of its frames."""
FAMILY = "voice-tunnel-"
"""How the subprotocols of every version begin."""


def encode(message: dict[str, Any], encoding: Encoding) -> bytes:
    """A map of what msgpack carries, as bytes. A lone surrogate becomes "?"."""
    if encoding == "json":
        text = json.dumps(message, default=_base64, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")
    packed: bytes = msgpack.packb(message, unicode_errors="replace")
    return packed


def decode(data: bytes, encoding: Encoding) -> dict[str, Any]:
    """The map. Raises TunnelBroken for bytes that are none."""
    try:
        if encoding == "json":
            message = json.loads(data, object_hook=_bytes)
        else:
            message = msgpack.unpackb(data, ext_hook=_refuse_extension)
    except (ValueError, RecursionError, msgpack.UnpackException) as exc:
        raise TunnelBroken(f"not {encoding}: {exc}") from None
    if not isinstance(message, dict):
        raise TunnelBroken(f"a message is a map, not {type(message).__name__}")
    return message


def _base64(value: object) -> dict[str, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} cannot cross the tunnel")


def _bytes(value: dict[str, Any]) -> object:
    if value.keys() != {"base64"}:
        return value
    try:
        return base64.b64decode(value["base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("base64 that is none") from None


def _refuse_extension(code: int, _data: bytes) -> object:
    raise ValueError(f"msgpack extension type {code}")
