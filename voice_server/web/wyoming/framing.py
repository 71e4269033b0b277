"""Events of the Wyoming protocol on a byte stream, each part bounded before it is awaited.

    {"type": …, "data": {…}, "data_length": n, "payload_length": m}\\n  n bytes of JSON  m bytes

https://github.com/OHF-Voice/wyoming, protocol 1. The package of that name reads whatever length a
peer states; a server on a network must not.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from voice_server.core.errors import RequestError, TooLarge

MAX_HEADER: Final = 65_536
MAX_DATA: Final = 1 << 20  # a text of 100,000 characters and more
MAX_PAYLOAD: Final = 1 << 20  # half a minute of sound in one event
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``payload``: PCM, where there is sound."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def value(self, name: str, cls: type[T], default: T | None = None) -> T:
        """A field of ``data``. Raises RequestError where it is missing or of another class."""
        value = self.data.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
            raise _bad(f"{self.kind} › {name}: expected {cls.__name__}, got {str(value)[:40]!r}")
        return value


async def read_event(
    reader: asyncio.StreamReader, *, idle: float | None, patience: float
) -> Event | None:
    """The next event; None when the peer has left.

    ``idle``: seconds until its first line is there, ``patience``: until the rest is. Raises
    TimeoutError, RequestError for what is no event, TooLarge, OSError for a lost connection.
    """
    try:
        async with asyncio.timeout(idle):
            line = await reader.readline()
    except ValueError:
        raise TooLarge(f"the line of an event has at most {MAX_HEADER} bytes") from None
    if not line.endswith(b"\n"):
        return None
    header = _object(line)
    kind, data = header.get("type"), header.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise _bad('expected {"type": "…", "data": {…}}')
    data_bytes = _length(header, "data_length", MAX_DATA)
    payload_bytes = _length(header, "payload_length", MAX_PAYLOAD)
    try:
        async with asyncio.timeout(patience):
            if data_bytes:
                data = {**data, **_object(await reader.readexactly(data_bytes))}
            payload = await reader.readexactly(payload_bytes) if payload_bytes else b""
    except asyncio.IncompleteReadError:
        return None
    return Event(kind, data, payload)


def encoded(event: Event) -> bytes:
    """The event as it goes over the wire."""
    header: dict[str, Any] = {"type": event.kind}
    data = b""
    if event.data:
        data = json.dumps(event.data).encode()
        header["data_length"] = len(data)
    if event.payload:
        header["payload_length"] = len(event.payload)
    return json.dumps(header).encode() + b"\n" + data + event.payload


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _bad("an event begins with a line of JSON, an object")
    return value


def _length(header: dict[str, Any], name: str, limit: int) -> int:
    length = header.get(name) or 0
    if type(length) is not int or length < 0:
        raise _bad(f"{name}: expected a number of bytes, got {str(length)[:40]!r}")
    if length > limit:
        raise TooLarge(f"{name}: an event has at most {limit} bytes; send several")
    return length


def _bad(message: str) -> RequestError:
    return RequestError(message, code="bad_message")
