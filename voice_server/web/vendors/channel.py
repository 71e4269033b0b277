"""A vendor's WebSocket as a client of /stream-tokens: messages are translated, nothing else.

    client ──vendor's──▶ Translation.incoming ──ours──▶ Conversation
           ◀─vendor's──  Translation.outgoing ◀──ours──

So text, cancel, lead, admission, limits and metrics are those of every other turn.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgpack

from voice_server.core import wire
from voice_server.core.errors import RequestError
from voice_server.speech.channel import Channel, ChannelClosed

Ours = dict[str, Any]
"""A message of docs/protocol.md."""

DEFAULTS = wire.Configure(framing="msgpack", words_first=False)
"""What every translation's ``defaults`` are made of: sound says which context it is of, and does
not wait for the times of its words, which every vendor's client takes as they come."""


class Translation(ABC):
    """What one connection said so far, as far as the next message must know it. No I/O.

    The first message, of ``opening`` or ``incoming``, must hold a configuration; ``{"opts": {}}``
    will do. One that names ``voice`` and ``opts`` alone keeps the connection from being one that
    can be resumed, which no vendor's client knows how to do: the rest belongs into ``defaults``.
    """

    defaults: wire.Configure = DEFAULTS
    subprotocol: str | None = None
    opening: Sequence[Ours] = ()
    """What is said before the client says anything: then it does not wait for that."""

    def __init__(self) -> None:
        self.replies: deque[str | bytes] = deque()
        """What is sent at once, past the conversation: at the start, and after ``incoming``."""
        self.is_over = False
        """Set when there is nothing more to say: the socket is then closed with 1000."""

    @abstractmethod
    def incoming(self, raw: str) -> Sequence[Ours]:
        """What a message of the client means; ``{}`` is a sign of life.

        Raises RequestError, which ends the connection: ``outgoing`` is given the error.
        """

    @abstractmethod
    def outgoing(self, message: Ours) -> Sequence[str | bytes]:
        """What to tell the client. Sound is ``{"type": "audio", "context", "offset", "pcm"}``."""

    def closing(self, code: int, reason: str) -> tuple[int, str]:
        """The code and reason with which the vendor's client expects to be closed."""
        return code, reason


class VendorChannel(Channel):
    """The Channel of a connection that a Translation serves."""

    def __init__(self, socket: Channel, translation: Translation) -> None:
        self._socket = socket
        self._translation = translation
        self._asked: deque[Ours] = deque(translation.opening)

    async def receive(self) -> str:
        while not self._asked:
            await self._reply()
            try:
                raw = await self._socket.receive()
            except ChannelClosed:
                # None of these clients can come back to its turn: it ends, and frees its slot.
                raise ChannelClosed(is_clean=True) from None
            self._asked.extend(self._translation.incoming(raw))
        await self._reply()
        return json.dumps(self._asked.popleft())

    async def send(self, *messages: str | bytes) -> None:
        for data in messages:
            message = msgpack.unpackb(data) if isinstance(data, bytes) else json.loads(data)
            await self._socket.send(*self._translation.outgoing(message))
            await self._reply()

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(*self._translation.closing(code, reason))

    async def _reply(self) -> None:
        replies = self._translation.replies
        while replies:
            await self._socket.send(replies.popleft())
        if self._translation.is_over:
            await self.close(1000, "")
            raise ChannelClosed(is_clean=True)


def json_object(raw: str) -> dict[str, Any]:
    """The object of a JSON message. Raises RequestError (``invalid_json``)."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"not JSON ({exc}); send JSON objects", code="invalid_json") from None
    if not isinstance(found, dict):
        raise RequestError("a message is a JSON object", code="bad_message")
    return found
