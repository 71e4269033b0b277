"""LiveKit's plugin for Deepgram, unmodified: Aura's socket, Flux's, and requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conftest import wait_until
from listening import is_close
from livekit.agents import APIStatusError
from livekit.agents.types import APIConnectOptions
from livekit.plugins import deepgram

TEXT = "Hello there, my friend. How are you today? I am well, thank you."
LONG = "This sentence is said again and again, until somebody hangs up. " * 300
ONCE = APIConnectOptions(max_retry=0, timeout=30)
VERSIONS = {"v1": deepgram.TTS, "v2": deepgram.TTSv2}


def speak(
    url: str,
    key: str,
    version: str,
    texts: tuple[str, ...] = (TEXT,),
    *,
    is_streamed: bool = True,
    model: str = "en-us",
) -> list[float]:
    """The seconds of each text, in turns of one service."""

    async def run() -> list[float]:
        async with aiohttp.ClientSession() as session:
            make: Any = VERSIONS[version]
            tts = make(
                base_url=f"{url}/{version}/speak", api_key=key, model=model, http_session=session
            )
            found = []
            async with tts:
                for text in texts:
                    if is_streamed:
                        stream = tts.stream(conn_options=ONCE)
                        for word in text.split():
                            stream.push_text(f"{word} ")
                        stream.end_input()
                    else:
                        stream = tts.synthesize(text, conn_options=ONCE)
                    async with stream:
                        found.append(sum([event.frame.duration async for event in stream]))
            return found

    return asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_turns_have_the_length_of_their_speech(
    url: str, key: str, length: Callable[[str], float], version: str, is_streamed: bool
) -> None:
    texts = (TEXT, "And one turn more.")
    found = speak(url, key, version, texts, is_streamed=is_streamed)
    for text, seconds in zip(texts, found, strict=True):
        assert is_close(seconds, length(text), 0.05)


def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Callable[[str], float]
) -> None:
    seconds = shown("deepgram.md", 2)["seconds"]
    assert is_close(seconds, length("Hello from my own server."), 0.05)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_is_wrong_is_its_own_error(
    url: str, key: str, version: str, is_streamed: bool
) -> None:
    for used, model, status in (("wrong", "en-us", 401), (key, "nobody", 400)):
        with pytest.raises(APIStatusError) as caught:
            speak(url, used, version, is_streamed=is_streamed, model=model)
        assert caught.value.status_code == status


def test_an_agent_that_is_interrupted_ends_the_turn(
    url: str, key: str, turns: Callable[..., float]
) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            async with deepgram.TTS(
                base_url=f"{url}/v1/speak", api_key=key, model="en-us", http_session=session
            ) as tts:
                stream = tts.stream(conn_options=ONCE)
                stream.push_text(LONG)
                stream.end_input()
                async for _ in stream:
                    break
                await stream.aclose()

    def ended() -> float:
        return sum(turns(door="deepgram", outcome=how) for how in ("dropped", "cancelled"))

    before = ended()
    asyncio.run(run())
    wait_until(lambda: ended() == before + 1)
