"""What one client sends without end is read in pieces, between which others get a word in."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from voice_server.config.settings import Limits
from voice_server.core.wire import Configure
from voice_server.speech.conversation import Conversation


class Flood:
    """Messages that are there already: receiving one lets nobody else run."""

    def __init__(self, message: str, count: int) -> None:
        self._message = message
        self.left = count
        self.is_read = asyncio.Event()

    def listen(self, take: Any) -> None: ...

    async def receive(self) -> str:
        if not self.left:
            self.is_read.set()
            await asyncio.Event().wait()
        self.left -= 1
        return self._message

    async def send(self, *messages: str | bytes) -> None:
        raise AssertionError(f"there is nothing to say: {messages}")

    async def close(self, code: int, reason: str) -> None: ...


@pytest.mark.parametrize(
    ("chars", "most"), [(1_900, 2), (1_000, 3), (60, 32)], ids=["long", "middling", "short"]
)
def test_as_many_messages_are_read_at_once_as_their_length_allows(chars: int, most: int) -> None:
    async def go() -> None:
        service: Any = SimpleNamespace(limits=Limits(), forget=lambda _: None)
        conversation = Conversation(service, "", Configure(), "x")
        message = '{"played_ms": 1' + " " * (chars - 16) + "}"
        flood = Flood(message, 320)
        task = asyncio.create_task(conversation.run(flood))  # type: ignore[arg-type]
        at_once, before = 0, flood.left
        while not flood.is_read.is_set():
            await asyncio.sleep(0)
            at_once, before = max(at_once, before - flood.left), flood.left
        task.cancel()
        await asyncio.wait([task])
        assert at_once == most

    asyncio.run(asyncio.wait_for(go(), 60))
