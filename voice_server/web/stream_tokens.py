"""``WS /stream-tokens``: the front door. A socket as a Channel, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from voice_server.core import wire
from voice_server.core.errors import RequestError
from voice_server.speech.channel import Channel, ChannelClosed
from voice_server.speech.service import SpeechService
from voice_server.web.socket import DIRECT, BoundedWebSocket

# How a socket ends whose peer will not come back: it said goodbye, or broke the protocol. Any other
# code means that the connection dropped.
_GOODBYES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010})


class SocketChannel(Channel):
    """One accepted WebSocket, on bare ASGI: twenty tokens a second leave no time for wrappers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        direct = scope.get("extensions", {}).get(DIRECT)
        self._socket: BoundedWebSocket | None = direct["socket"] if direct else None

    def listen(self, take: Callable[[str], bool]) -> None:
        if self._socket is not None:
            self._socket.take = take

    async def receive(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise ChannelClosed(is_clean=_is_goodbye(message))
        text: str | None = message.get("text")
        if text is None:
            raise RequestError(
                "messages to the server are JSON text; binary ones go the other way only",
                code="binary_message",
            )
        return text

    async def send(self, *messages: str | bytes) -> None:
        if self._socket is not None:
            sound: list[bytes] = []
            for message in messages:
                if not isinstance(message, bytes):
                    break
                sound.append(message)
            if sound and self._socket.write_sound(*sound):
                messages = messages[len(sound) :]
        for message in messages:
            key = "bytes" if isinstance(message, bytes) else "text"
            try:
                await self._send({"type": "websocket.send", key: message})
            except OSError:
                raise ChannelClosed(is_clean=False) from None

    async def close(self, code: int, reason: str) -> None:
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:
            raise ChannelClosed(is_clean=False) from None


class StreamTokens:
    """The ASGI application behind the route."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service: SpeechService = scope["app"].state.speech
        channel = await accept(scope, receive, send)
        if channel is not None:
            query = query_of(scope)
            defaults = wire.Configure(voice=query.get("voice"), backend=query.get("backend"))
            await service.converse(channel, scope["state"].get("tenant", ""), defaults)


async def accept(
    scope: Scope, receive: Receive, send: Send, subprotocol: str | None = None
) -> SocketChannel | None:
    """The socket, open; None when the peer has gone meanwhile."""
    await receive()  # websocket.connect
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
    except OSError:
        return None
    return SocketChannel(scope, receive, send)


def query_of(scope: Scope) -> dict[str, str]:
    """The query's parameters, the last of each name."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1")))


def _is_goodbye(message: Message) -> bool:
    code = message.get("code")
    # 1005 with a reason, be it empty, is a close frame without a code: what a browser's close()
    # sends. Without one it is uvicorn's word for a connection that was lost.
    return code in _GOODBYES or (code == 1005 and "reason" in message) or (code or 0) >= 3000


def routes() -> list[BaseRoute]:
    return [WebSocketRoute("/stream-tokens", StreamTokens())]
