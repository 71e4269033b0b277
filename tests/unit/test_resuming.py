"""A client comes back by two sockets at once, while its old one is still half open."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from voice_server.config.settings import Limits
from voice_server.core.wire import Configure
from voice_server.speech.conversation import Conversation


class Channel:
    """Says nothing, and keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.was_told = asyncio.Event()

    async def receive(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def send(self, data: str | bytes) -> None:
        self.sent.append(data)
        self.was_told.set()

    async def close(self, code: int, reason: str) -> None: ...


def test_the_last_socket_that_resumes_gets_everything() -> None:
    async def go() -> None:
        service: Any = SimpleNamespace(limits=Limits(), forget=lambda _: None)
        conversation = Conversation(service, "", Configure(), "x")
        old, second, last = Channel(), Channel(), Channel()
        tasks = [asyncio.create_task(conversation.run(old))]
        await asyncio.sleep(0)  # it is being served
        tasks += [asyncio.create_task(conversation.resume(to, 0)) for to in (second, last)]
        # The two that are not served any more come to their ends.
        await asyncio.wait_for(asyncio.gather(*tasks[:2]), 30)
        await asyncio.wait_for(last.was_told.wait(), 30)
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert [json.loads(message)["type"] for message in last.sent] == ["resumed"]
        assert second.sent == old.sent == []

    asyncio.run(go())
