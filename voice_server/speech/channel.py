"""What a conversation asks of a socket."""

from __future__ import annotations

from typing import Protocol


class ChannelClosed(Exception):
    """The peer is gone. ``is_clean``: it said goodbye, and will not come back."""

    def __init__(self, *, is_clean: bool) -> None:
        super().__init__("closed" if is_clean else "dropped")
        self.is_clean = is_clean


class Channel(Protocol):
    """A socket. ``receive`` and ``send`` raise ChannelClosed when the peer is gone.

    ``receive`` raises RequestError for a message that is not text.
    """

    async def receive(self) -> str: ...
    async def send(self, data: str | bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
