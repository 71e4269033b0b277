"""What is said in a session: one record each, nearly all of them ASGI messages of a stream.

A record is a map with ``type`` and, but for ``voices.changed``, ``stream``. The messages have the
names and fields of ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html); ``open`` begins a
stream with the scope, ``credit`` lets more bytes of it come, ``reset`` ends it at once.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from voice_server.core.tunnel.errors import TunnelBroken

Record = dict[str, Any]

MAX_RECORD: Final = 1 << 18
"""Bytes of the text or body in one record."""
MIN_COUNT: Final = 64
"""Bytes that a record counts for at least: an empty message takes memory too."""
MAX_STREAMS: Final = 10_000
MAX_HEADERS: Final = 1 << 16
"""Bytes of the headers of a request or an answer; as many again of a request's path and query."""


CLOSE: Final = "websocket.close"
"""The box's last word on a WebSocket. The relay's is ``websocket.disconnect``, which ends the
stream and says whether the client has got what was sent before."""


class Role(enum.Enum):
    RELAY = "relay"
    BOX = "box"

    @property
    def peer(self) -> Role:
        return Role.BOX if self is Role.RELAY else Role.RELAY


class _Optional:
    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls


_Fields = Mapping[str, type[Any] | _Optional]
_BY_RELAY, _BY_BOX, _BY_BOTH = frozenset({Role.RELAY}), frozenset({Role.BOX}), frozenset(Role)
_MESSAGE: _Fields = {"text": _Optional(str), "bytes": _Optional(bytes)}
_BODY: _Fields = {"body": bytes, "more_body": bool}
_START: _Fields = {"status": int, "headers": list}
FIELDS: Mapping[str, tuple[frozenset[Role], _Fields]] = {
    "open": (_BY_RELAY, {"scope": dict, "own": bool}),
    "http.request": (_BY_RELAY, _BODY),
    "websocket.receive": (_BY_RELAY, _MESSAGE),
    "websocket.disconnect": (_BY_RELAY, {"code": int, "reason": _Optional(str)}),
    "http.response.start": (_BY_BOX, _START),
    "http.response.body": (_BY_BOX, _BODY),
    "websocket.accept": (_BY_BOX, {"subprotocol": _Optional(str), "headers": list}),
    "websocket.send": (_BY_BOX, _MESSAGE),
    CLOSE: (_BY_BOX, {"code": int, "reason": str}),
    "websocket.http.response.start": (_BY_BOX, _START),
    "websocket.http.response.body": (_BY_BOX, _BODY),
    "reset": (_BY_BOTH, {"reason": str}),
    "credit": (_BY_BOTH, {"bytes": int}),
    "voices.changed": (_BY_BOX, {}),
}
"""Who may send what: type → (senders, fields)."""

SCOPE: _Fields = {
    "type": str,
    "method": _Optional(str),
    "scheme": str,
    "http_version": str,
    "path": str,
    "raw_path": bytes,
    "query_string": bytes,
    "headers": list,
    "client": _Optional(list),
    "subprotocols": _Optional(list),
}
"""What crosses of an ASGI scope."""

_LAST = {"http.response.body", "websocket.http.response.body"}
_COUNTED = {*_LAST, "http.request", "websocket.receive", "websocket.send"}
HEADS: Final = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
"""What begins an answer. A stream has one."""
_COMMON = {"type", "stream"}


def check(record: object, sender: Role) -> Record:
    """The record, if ``sender`` may send it. Raises TunnelBroken, naming what is wrong."""
    if not isinstance(record, dict):
        raise TunnelBroken("a record is a map")
    kind = record.get("type")
    known = FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None or sender not in known[0]:
        raise TunnelBroken(f"the {sender.value} may not send {kind!r:.60}")
    fields = known[1]
    if not (_is_number(record.get("stream")) or kind == "voices.changed"):
        raise TunnelBroken(f"{kind}: stream is a positive number")
    _check_fields(f"{kind}", record, fields)
    # What no window counts must not be there: a reader holds the whole record.
    if not (record.keys() - fields.keys() <= _COMMON):
        raise TunnelBroken(f"{kind}: there is more in it than {', '.join(fields)}")
    if size(record) > MAX_RECORD:
        raise TunnelBroken(f"{kind}: more than {MAX_RECORD} bytes")
    if fields is _MESSAGE:
        if record.get("text") is not None and record.get("bytes") is not None:
            raise TunnelBroken(f"{kind}: text or bytes, not both")
    elif kind == "credit" and not 0 < record["bytes"] < 2**40:
        raise TunnelBroken("credit is a positive number of bytes")
    elif kind == "open":
        _check_scope(record["scope"])
    elif "headers" in fields:
        _check_headers(record["headers"])
    return record


def is_last(record: Record) -> bool:
    """Whether nothing follows on this stream, from either side."""
    kind = record["type"]
    if kind in _LAST:
        return not record["more_body"]
    return kind in ("reset", "websocket.disconnect")


def size(record: Record) -> int:
    """Bytes that count against the window of the stream: its text or body, and never next to none.

    Zero for what comes once in a stream, and for what concerns the window itself.
    """
    if record["type"] not in _COUNTED:
        return 0
    data = record.get("bytes") or record.get("text") or record.get("body") or b""
    if isinstance(data, str) and not data.isascii():
        data = data.encode("utf-8", "replace")
    return max(len(data), MIN_COUNT)


def weight(record: Record) -> int:
    """Bytes of it that ``size`` does not count: its headers, and the path of a request."""
    scope = record.get("scope", record)
    paths = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return sum(len(name) + len(value) for name, value in scope.get("headers") or ()) + 4 * paths


def _check_scope(scope: Record) -> None:
    _check_fields("open: scope", scope, SCOPE)
    if scope["type"] not in ("http", "websocket"):
        raise TunnelBroken(f"open: no stream of type {scope['type']!r:.40}")
    if scope["type"] == "http" and not scope.get("method"):
        raise TunnelBroken("open: an HTTP request has a method")
    if not scope.keys() <= SCOPE.keys():
        raise TunnelBroken(f"open: there is more in the scope than {', '.join(SCOPE)}")
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_HEADERS:
        raise TunnelBroken(f"open: path and query have at most {MAX_HEADERS} bytes")
    _check_headers(scope["headers"])


def _check_headers(headers: list[Any]) -> None:
    held = 0
    for pair in headers:
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise TunnelBroken("a header is a pair")
        if not (isinstance(pair[0], bytes) and isinstance(pair[1], bytes)):
            raise TunnelBroken("a header is a pair of bytes")
        held += len(pair[0]) + len(pair[1])
    if held > MAX_HEADERS:
        raise TunnelBroken(f"headers have at most {MAX_HEADERS} bytes")


def _check_fields(what: str, record: Record, fields: _Fields) -> None:
    for name, cls in fields.items():
        value = record.get(name)
        # bool is an int in Python, but True is no status.
        if type(value) is cls:
            continue
        if isinstance(cls, _Optional):
            if value is None or type(value) is cls.cls:
                continue
            cls = cls.cls
        raise TunnelBroken(f"{what}: {name} is missing or no {cls.__name__}")


def _is_number(value: object) -> bool:
    return type(value) is int and 0 < value < 2**53
