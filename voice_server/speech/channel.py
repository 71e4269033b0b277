"""What a conversation asks of a socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class ChannelClosed(Exception):
    """The peer is gone. ``is_clean``: it said goodbye, and will not come back."""

    def __init__(self, *, is_clean: bool) -> None:
        super().__init__("closed" if is_clean else "dropped")
        self.is_clean = is_clean


class Channel(Protocol):
    """A socket. ``receive`` and ``send`` raise ChannelClosed when the peer is gone.

    ``receive`` raises RequestError for a message that is not text.
    """

    def listen(self, take: Callable[[str], bool]) -> None:
        """Offer messages to ``take`` as they come in while ``receive`` is awaited.

        It returns those that ``take`` refuses, with False. A channel may offer none.
        """
        return

    async def receive(self) -> str: ...
    async def send(self, *messages: str | bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


async def outcome(task: asyncio.Task[None]) -> ChannelClosed | None:
    """Cancel the task unless it is done; what it found of the channel, if it was closed."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return None
    except ChannelClosed as exc:
        return exc
    except Exception:
        logger.exception("a socket failed")
    return None
