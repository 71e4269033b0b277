"""What speech is measured against: a bare uvicorn WebSocket that sends sound it has already.

It answers every message ``{"say": n}`` with ``n`` bytes in frames of 9,600, and knows nothing of
speech. Run as ``python -m bench.baseline``; prints ``PORT n``.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import uvicorn

FRAME = 9_600  # bytes: 200 ms


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    sound = bytes(1 << 20)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        left = json.loads(message["text"]).get("say", 0)
        while left > 0:
            size = min(FRAME, left)
            await send({"type": "websocket.send", "bytes": sound[:size]})
            left -= size


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print("PORT", listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", ws_per_message_deflate=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
