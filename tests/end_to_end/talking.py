"""A client of the WebSockets, for tests: sends what it is told, keeps all that comes."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
Message = dict[str, Any]


class Talk:
    """One socket. ``messages`` holds what came, sound as ``{"type": "audio", "pcm": …}``.

    ``received`` counts bytes of sound; every message tells, as ``after``, how many came before it.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        self.received = 0

    def send(self, raw: str | bytes | None = None, /, **fields: Any) -> None:
        self.connection.send(json.dumps(fields) if raw is None else raw)

    def tokens(self, *texts: str) -> None:
        for text in texts:
            self.send(token=text)

    def take(self) -> Message | None:
        """The next message; None when the server has closed."""
        try:
            raw = self.connection.recv(PATIENCE)
        except ConnectionClosed:
            return None
        message = self._message(raw)
        message["after"] = self.received
        if message["type"] == "audio":
            self.received += len(message["pcm"])
        self.messages.append(message)
        return message

    def until(self, kind: str, is_wanted: Callable[[Message], bool] = lambda _: True) -> Message:
        """Take messages up to the first of this kind."""
        while (message := self.take()) is not None:
            if message["type"] == kind and is_wanted(message):
                return message
        raise AssertionError(
            f"closed with {self.close_code} before {kind!r}; came: "
            f"{[m for m in self.messages if m['type'] != 'audio']}"
        )

    def until_closed(self) -> int:
        """Take everything; the close code."""
        while self.take() is not None:
            pass
        return self.close_code

    def of(self, kind: str, **fields: Any) -> list[Message]:
        """The messages of a kind that came, with these fields."""
        return [
            message
            for message in self.messages
            if message["type"] == kind and fields.items() <= message.items()
        ]

    @property
    def kinds(self) -> set[str]:
        return {message["type"] for message in self.messages}

    @property
    def sound(self) -> bytes:
        return b"".join(message["pcm"] for message in self.of("audio"))

    @property
    def sentences(self) -> list[str]:
        return [message["sentence"] for message in self.of("generating")]

    @property
    def close_code(self) -> int:
        code = self.connection.protocol.close_code
        assert code is not None
        return code

    def drop(self) -> None:
        """Be gone without a word, as a telephone in a tunnel is."""
        raw = self.connection.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RD)
        # The descriptor itself is closed by the connection's own thread.
        self.connection.close_socket()

    def _message(self, raw: str | bytes) -> Message:
        if isinstance(raw, str):
            message: Message = json.loads(raw)
            return message
        # Sound never begins like a msgpack map of this protocol, unless it is one.
        with contextlib.suppress(ValueError, msgpack.ExtraData, msgpack.FormatError):
            unpacked = msgpack.unpackb(raw)
            if isinstance(unpacked, dict) and "type" in unpacked:
                return unpacked
        return {"type": "audio", "pcm": raw}


@contextlib.contextmanager
def talk(url: str, **options: Any) -> Iterator[Talk]:
    """A socket at ``url``, closed in the end."""
    options.setdefault("compression", None)
    with connect(url, open_timeout=PATIENCE, close_timeout=5, **options) as connection:
        yield Talk(connection)


def levels(pcm: bytes) -> list[int]:
    """The runs of equal samples: chaos gives each word a level of its own."""
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    return [s for i, s in enumerate(samples) if not i or samples[i - 1] != s]
