"""A WebSocket client that costs next to nothing, so that a benchmark measures the server.

It speaks just what the benchmarks need of RFC 6455: text frames out, frames in, no extensions.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from urllib.parse import quote

_MASK = b"\x00\x00\x00\x00"  # a mask of zeroes is legal, and saves the exclusive or


def text_frame(message: object) -> bytes:
    """One masked text frame that holds ``message`` as JSON."""
    payload = json.dumps(message).encode()
    if len(payload) < 126:
        return bytes((0x81, 0x80 | len(payload))) + _MASK + payload
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + _MASK + payload


class Socket(asyncio.Protocol):
    """Calls ``on_frame(is_binary, payload)`` for each frame; ``closed`` is set at the end."""

    def __init__(self, on_frame: Callable[[bool, bytes], None]) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self._on_frame = on_frame
        self._buffer = bytearray()
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            status = bytes(self._buffer[:end]).split(b"\r\n", 1)[0]
            del self._buffer[: end + 4]
            if b" 101 " not in status:
                self.opened.set_exception(ConnectionError(status.decode()))
                return
            self._is_open = True
            self.opened.set_result(None)
        self._parse()

    def _parse(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            opcode, length, start = buffer[at] & 15, buffer[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
            if len(buffer) < start + length:
                break
            payload = bytes(buffer[start : start + length])
            at = start + length
            if opcode in (1, 2):
                self._on_frame(opcode == 2, payload)
            elif opcode == 9:
                self.transport.write(bytes((0x8A, 0x80 | len(payload))) + _MASK + payload)
            elif opcode == 8:
                self.transport.close()
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed before the handshake"))

    def send(self, frame: bytes) -> None:
        if not self.transport.is_closing():  # a listener may have been refused
            self.transport.write(frame)


def path(door: str, api_key: str = "") -> str:
    """The path of a door, with the key where one is needed."""
    return f"{door}?api_key={quote(api_key)}" if api_key else door


async def connect(port: int, path: str, on_frame: Callable[[bool, bytes], None]) -> Socket:
    """Open a WebSocket to the loopback."""
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: Socket(on_frame), "127.0.0.1", port)
    key = os.urandom(16).hex()[:22] + "=="
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    socket.transport.write(request.encode())
    await socket.opened
    return socket
