"""uvicorn, for servers that finish what they have begun before they go."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from voice_server.config import Limits
from voice_server.web.http import BoundedHttp
from voice_server.web.socket import BoundedWebSocket

logger = logging.getLogger(__name__)


class LeavingServer(uvicorn.Server):
    """SIGTERM and SIGINT await ``drain`` first, unless they are repeated.

    ``on_start`` is called when the server listens; ``on_hangup`` is awaited at each SIGHUP, but for
    the one that says that its terminal was closed: then it leaves, too, unless it runs under nohup.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[object]],
        on_start: Callable[[], None],
        on_hangup: Callable[[], Coroutine[object, object, None]] | None = None,
    ) -> None:
        super().__init__(config)
        self._drain, self._on_start, self._on_hangup = drain, on_start, on_hangup
        self._is_leaving = False
        self._needs_terminal = False
        self._task: asyncio.Task[None] | None = None  # of which the loop alone would not keep hold

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_leaving:
            self.should_exit = self.force_exit = True
            return
        self._is_leaving = True
        name = signal.Signals(sig).name
        asyncio.get_running_loop().call_soon_threadsafe(self._leave, name)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_hangup is not None:
            is_under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            self._needs_terminal = _has_terminal() and not is_under_nohup
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        # What is there now stays; the collector need not look at it again between two frames.
        gc.freeze()
        gc.enable()
        self._on_start()

    def _leave(self, why: str) -> None:
        logger.info("%s: finishing what is under way", why)
        self._task = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True

    def _hang_up(self) -> None:
        if self._is_leaving or self._on_hangup is None:
            return
        if self._needs_terminal and not _has_terminal():
            self._is_leaving = True
            self._leave("the terminal was closed")
        else:
            self._task = asyncio.create_task(self._on_hangup())


def _has_terminal() -> bool:
    """Whether somebody has started this process in a terminal that is open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def uvicorn_config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """What every server of ours has in common."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=logger.isEnabledFor(logging.DEBUG),
        server_header=False,
        http=BoundedHttp,
        ws=BoundedWebSocket,
        # What is a little too long must still reach the application, to be answered.
        ws_max_size=4 * limits.max_message_bytes,
        ws_ping_interval=limits.ping_interval,
        ws_ping_timeout=limits.ping_timeout,
        # A message is two dozen bytes, or PCM: compressing costs more than it saves.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
    )
