"""The Wyoming door: a TCP server for Home Assistant and its satellites.

The protocol knows no keys. Whoever can connect may speak, so it listens where it is told, and on
loopback unless another address is named.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.datastructures import State

from voice_server.core.errors import BusyError
from voice_server.web.wyoming.connection import Connection
from voice_server.web.wyoming.framing import MAX_HEADER, Event, encoded

logger = logging.getLogger(__name__)

_HELD = 65_536  # bytes of sound for a client that reads too slowly


@asynccontextmanager
async def serving(listener: socket.socket | None, state: State) -> AsyncIterator[None]:
    """Take clients on ``listener``, if there is one, until the end; then end those that are there.

    ``state``: see web/app.py.
    """
    if listener is None:
        yield
        return
    clients = _Clients(state)
    server = await asyncio.start_server(clients.serve, sock=listener, limit=MAX_HEADER)
    try:
        yield
    finally:
        server.close()
        await clients.stop()


class _Clients:
    def __init__(self, state: State) -> None:
        self._state = state
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writer.transport.set_write_buffer_limits(high=_HELD)
        try:
            if len(self._tasks) > self._state.speech.limits.max_connections:
                error = BusyError("too many connections; come back later")
                refusal = {"text": str(error), "code": "too_many_connections"}
                writer.write(encoded(Event("error", refusal)))
            else:
                await Connection(self._state, reader, writer).run()
        except asyncio.CancelledError:
            pass  # by stop; asyncio would log the task of a connection that ends by that
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()
            writer.transport.abort()  # what it has not read in a second, it will not read

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
