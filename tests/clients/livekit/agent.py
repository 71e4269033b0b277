"""What an agent of LiveKit's does with any vendor's plugin: it speaks, and it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from conftest import wait_until
from livekit.agents.types import APIConnectOptions

TEXT = "Hello there, my friend. How are you today? I am well, thank you."
LONG = "This sentence is said again and again, until somebody interrupts. " * 300
ONCE = APIConnectOptions(max_retry=0, timeout=30)
Plugin = Callable[..., Any]
"""The plugin's class with its settings; it is called with ``http_session``."""


def speak(plugin: Plugin, *texts: str, is_streamed: bool = True) -> list[list[Any]]:
    """The frames of each text, in turns of one service."""

    async def run() -> list[list[Any]]:
        found = []
        async with aiohttp.ClientSession() as session, plugin(http_session=session) as tts:
            for text in texts or (TEXT,):
                stream: Any
                if is_streamed:
                    stream = tts.stream(conn_options=ONCE)
                    for word in text.split():
                        stream.push_text(f"{word} ")
                    stream.end_input()
                else:
                    stream = tts.synthesize(text, conn_options=ONCE)
                async with stream:
                    found.append([event.frame async for event in stream])
        return found

    return asyncio.run(run())


def seconds(frames: list[Any]) -> float:
    return sum([frame.duration for frame in frames])


def interrupt(plugin: Plugin, turns: Callable[..., float], door: str) -> None:
    """Stop listening to a long text at its first sound: its turn has to end."""

    async def run() -> None:
        async with aiohttp.ClientSession() as session, plugin(http_session=session) as tts:
            stream = tts.stream(conn_options=ONCE)
            stream.push_text(LONG)
            stream.end_input()
            async for _ in stream:
                break
            await stream.aclose()

    def ended() -> float:
        return sum(turns(door=door, outcome=how) for how in ("dropped", "cancelled"))

    before = ended()
    asyncio.run(run())
    wait_until(lambda: ended() > before)
