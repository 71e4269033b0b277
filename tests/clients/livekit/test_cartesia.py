"""LiveKit's plugin for Cartesia, unmodified: a context for each turn, timed words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conftest import wait_until
from listening import is_close
from livekit.agents import APIError, APIStatusError
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, APIConnectOptions
from livekit.plugins import cartesia

TEXT = "Hello there, my friend. How are you today? I am well, thank you."
LONG = "This sentence is said again and again, until somebody interrupts. " * 300
ONCE = APIConnectOptions(max_retry=0, timeout=30)
Length = Callable[[str], float]


def speak(
    url: str,
    key: str,
    texts: tuple[str, ...] = (TEXT,),
    *,
    is_streamed: bool = True,
    **options: Any,
) -> list[list[Any]]:
    """The frames of each text, in turns of one service."""

    async def run() -> list[list[Any]]:
        async with aiohttp.ClientSession() as session:
            settings = {"voice": "en-us", **options}
            tts = cartesia.TTS(base_url=url, api_key=key, http_session=session, **settings)
            found = []
            async with tts:
                for text in texts:
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


@pytest.mark.parametrize("is_streamed", [False, True])
def test_turns_have_the_length_of_their_speech(
    url: str, key: str, length: Length, is_streamed: bool
) -> None:
    texts = (TEXT, "And one turn more.")
    for text, frames in zip(texts, speak(url, key, texts, is_streamed=is_streamed), strict=True):
        assert is_close(sum(frame.duration for frame in frames), length(text), 0.05)


def test_words_of_a_stream_increase_and_cover_the_text(url: str, key: str, length: Length) -> None:
    [frames] = speak(url, key)
    timed = [word for f in frames for word in f.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
    assert "".join("".join(timed).split()) == "".join(TEXT.split())
    starts = [word.start_time for word in timed]
    assert starts == sorted(starts)
    assert all(word.start_time <= word.end_time <= length(TEXT) + 0.05 for word in timed)
    assert starts[-1] > 0.6 * length(TEXT)


def test_speed_makes_it_shorter(url: str, key: str, length: Length) -> None:
    [frames] = speak(url, key, speed=1.5)
    assert sum(frame.duration for frame in frames) < 0.8 * length(TEXT)


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    seconds = shown("cartesia.md", 2)["seconds"]
    assert is_close(seconds, length("Hello from my own server."), 0.05)


def test_what_is_wrong_is_its_own_error(url: str, key: str) -> None:
    for is_streamed in (False, True):
        with pytest.raises(APIStatusError) as caught:
            speak(url, "wrong", is_streamed=is_streamed)
        assert caught.value.status_code == 401
    with pytest.raises(APIStatusError) as caught:
        speak(url, key, is_streamed=False, voice="nobody")
    assert caught.value.status_code == 404
    with pytest.raises(APIError):
        speak(url, key, voice="nobody")


def test_an_agent_that_is_interrupted_ends_the_turn(
    url: str, key: str, turns: Callable[..., float]
) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            settings = {"voice": "en-us", "http_session": session}
            async with cartesia.TTS(base_url=url, api_key=key, **settings) as tts:
                stream = tts.stream(conn_options=ONCE)
                stream.push_text(LONG)
                stream.end_input()
                async for _ in stream:
                    break
                await stream.aclose()

    def ended() -> float:
        return sum(turns(door="cartesia", outcome=how) for how in ("dropped", "cancelled"))

    before = ended()
    asyncio.run(run())
    wait_until(lambda: ended() == before + 1)
