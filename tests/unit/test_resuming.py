"""A client that comes back: by two sockets at once, or slowly after everything was said."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from voice_server.config.settings import Limits
from voice_server.core.errors import Draining
from voice_server.core.wire import AudioFormat, Configure
from voice_server.speech.channel import ChannelClosed
from voice_server.speech.conversation import _ALL_SAID, Conversation


class Channel:
    """Says nothing, and keeps what it is sent."""

    def __init__(self, pace: float = 0.0) -> None:
        self._pace = pace  # seconds that each message takes
        self.sent: list[str | bytes] = []
        self.was_told = asyncio.Event()
        self.was_closed = asyncio.Event()

    def listen(self, take: Any) -> None: ...

    async def receive(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def send(self, *messages: str | bytes) -> None:
        await asyncio.sleep(self._pace)
        self.sent += messages
        self.was_told.set()

    async def close(self, code: int, reason: str) -> None:
        self.was_closed.set()


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


def test_who_is_refused_while_his_text_waits_for_a_voice_is_told_one_reason() -> None:
    class Talking(Channel):
        was_heard = False

        async def receive(self) -> str:
            if not self.was_heard:
                self.was_heard = True
                return '{"token": "Hello. "}'
            return await super().receive()

        async def close(self, code: int, reason: str) -> None:
            self.reason = reason

    async def go() -> None:
        is_asked, is_found = asyncio.Event(), asyncio.Event()

        async def route(*_: Any) -> Any:
            is_asked.set()
            await is_found.wait()
            return SimpleNamespace()

        refused: Any = SimpleNamespace(labels=lambda _: SimpleNamespace(inc=lambda: None))
        metrics = SimpleNamespace(refused=refused)
        service: Any = SimpleNamespace(
            limits=Limits(), metrics=metrics, route=route, forget=lambda _: None
        )
        conversation, channel = Conversation(service, "", Configure(), "x"), Talking(pace=0.02)
        task = asyncio.create_task(conversation.run(channel))
        await asyncio.wait_for(is_asked.wait(), 30)
        conversation.end(Draining("the server is going away"))
        is_found.set()
        await asyncio.wait_for(task, 30)
        assert [json.loads(message)["code"] for message in channel.sent] == ["draining"]
        assert channel.reason == "draining"

    asyncio.run(go())


def test_who_has_resumed_a_turn_that_is_over_and_says_goodbye_is_not_waited_for_again() -> None:
    class Leaving(Channel):
        async def receive(self) -> str:
            await self.was_closed.wait()
            raise ChannelClosed(is_clean=True)

    async def go() -> None:
        kept: list[Conversation] = []
        service: Any = SimpleNamespace(
            limits=Limits(send_deadline=0.05), keep=kept.append, forget=lambda _: None
        )
        conversation = Conversation(service, "", Configure(), "x")
        conversation._output.is_resumable = True
        conversation._output.sound(None, 0, b"xx", AudioFormat())
        conversation._closing = _ALL_SAID
        await conversation.run(Channel())
        assert kept.pop() is conversation
        conversation._limits = Limits()  # the goodbye is heard, not its deadline
        await asyncio.wait_for(conversation.resume(Leaving(), 0), 30)
        assert not kept

    asyncio.run(go())


def test_who_reads_as_fast_as_he_listens_gets_all_of_a_turn_that_is_over() -> None:
    async def go() -> None:
        parked: list[Conversation] = []
        service: Any = SimpleNamespace(limits=Limits(send_deadline=0.05), keep=parked.append)
        conversation = Conversation(service, "", Configure(), "x")
        conversation._output.is_resumable = True
        frames = [
            conversation._output.sound(None, 0, bytes([n, n]), AudioFormat()) for n in range(10)
        ]
        conversation._closing = _ALL_SAID
        await conversation.run(Channel())
        assert parked == [conversation]
        slow = Channel(pace=0.02)
        await asyncio.wait_for(conversation.resume(slow, 0), 30)
        assert slow.sent[1:] == frames

    asyncio.run(go())
