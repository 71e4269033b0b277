"""LiveKit's plugin for OpenAI, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from listening import is_close
from livekit.agents import APIStatusError
from livekit.agents.types import APIConnectOptions
from livekit.plugins import openai

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody hangs up. " * 300
ONCE = APIConnectOptions(max_retry=0, timeout=30)


@pytest.mark.parametrize("model", ["gpt-4o-mini-tts", "tts-1"])
def test_it_speaks_as_events_and_as_a_body(
    url: str, key: str, length: Callable[[str], float], model: str
) -> None:
    async def speak() -> float:
        tts = openai.TTS(base_url=f"{url}/v1", api_key=key, model=model, voice="alloy")
        async with tts, tts.synthesize(TEXT, conn_options=ONCE) as stream:
            return sum([event.frame.duration async for event in stream])

    assert is_close(asyncio.run(speak()), length(TEXT), 0.1)


def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Callable[[str], float]
) -> None:
    seconds = shown("openai.md", 1)["seconds"]
    assert is_close(seconds, length("Hello from my own server."), 0.1)


def test_a_wrong_key_is_its_own_error(url: str) -> None:
    async def speak() -> None:
        tts = openai.TTS(base_url=f"{url}/v1", api_key="wrong", voice="alloy")
        async with tts, tts.synthesize(TEXT, conn_options=ONCE) as stream:
            async for _ in stream:
                pass

    with pytest.raises(APIStatusError) as caught:
        asyncio.run(speak())
    assert caught.value.status_code == 401


def test_closing_the_stream_ends_the_turn(url: str, key: str, turns: Callable[..., float]) -> None:
    from conftest import wait_until

    before = turns(door="openai", outcome="dropped")

    async def speak() -> None:
        tts = openai.TTS(
            base_url=f"{url}/v1", api_key=key, model="tts-1", voice="alloy", response_format="pcm"
        )
        async with tts:
            stream = tts.synthesize(LONG, conn_options=ONCE)
            await anext(stream)
            await stream.aclose()

    asyncio.run(speak())
    wait_until(lambda: turns(door="openai", outcome="dropped") > before)
