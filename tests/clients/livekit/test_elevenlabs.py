"""LiveKit's plugin for ElevenLabs, unmodified: contexts on one socket, timed words."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from conftest import wait_until
from listening import is_close
from livekit.agents import APIError, APIStatusError
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, APIConnectOptions
from livekit.plugins import elevenlabs

TEXT = "Hello there, my friend. How are you today? I am well, thank you."
LONG = "This sentence is said again and again, until somebody interrupts. " * 60
ONCE = APIConnectOptions(max_retry=0, timeout=30)
Frames = list[Any]


def speak(url: str, key: str, text: str, *, is_streamed: bool, **options: Any) -> Frames:
    """The frames of a text."""

    async def run() -> Frames:
        async with aiohttp.ClientSession() as session:
            tts = elevenlabs.TTS(
                base_url=f"{url}/v1",
                api_key=key,
                http_session=session,
                **{"voice_id": "en-us", "encoding": "pcm_24000", **options},
            )
            async with tts:
                if not is_streamed:
                    async with tts.synthesize(text, conn_options=ONCE) as stream:
                        return [event.frame async for event in stream]
                async with tts.stream(conn_options=ONCE) as stream:
                    for word in text.split():
                        stream.push_text(f"{word} ")
                    stream.end_input()
                    return [event.frame async for event in stream]

    return asyncio.run(run())


@pytest.mark.parametrize("encoding", ["pcm_24000", "mp3_22050_32"])
def test_a_text_at_once_has_the_length_of_the_speech(
    url: str, key: str, length: Callable[[str], float], encoding: str
) -> None:
    frames = speak(url, key, TEXT, is_streamed=False, encoding=encoding)
    assert is_close(sum(frame.duration for frame in frames), length(TEXT), 0.1)


def test_words_of_a_stream_increase_and_cover_the_text(
    url: str, key: str, length: Callable[[str], float]
) -> None:
    frames = speak(url, key, TEXT, is_streamed=True)
    seconds = sum(frame.duration for frame in frames)
    assert is_close(seconds, length(TEXT), 0.05)
    timed = [word for f in frames for word in f.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
    assert "".join("".join(timed).split()) == "".join(TEXT.split())
    starts = [word.start_time for word in timed]
    assert starts == sorted(starts)
    assert all(word.start_time <= word.end_time <= seconds + 0.05 for word in timed)
    assert starts[-1] > 0.6 * seconds


def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Callable[[str], float]
) -> None:
    seconds = shown("elevenlabs.md", 1)["seconds"]
    assert is_close(seconds, length("Hello from my own server."), 0.1)


def test_what_is_wrong_is_its_own_error(url: str, key: str) -> None:
    with pytest.raises(APIStatusError) as caught:
        speak(url, "wrong", TEXT, is_streamed=False)
    assert caught.value.status_code == 401
    with pytest.raises(APIStatusError) as caught:
        speak(url, key, TEXT, is_streamed=False, voice_id="nobody")
    assert caught.value.status_code == 404
    with pytest.raises(APIError):
        speak(url, key, TEXT, is_streamed=True, voice_id="nobody")


def test_a_second_turn_uses_the_same_socket(
    url: str, key: str, length: Callable[[str], float]
) -> None:
    async def run() -> list[float]:
        async with aiohttp.ClientSession() as session:
            tts = elevenlabs.TTS(
                base_url=f"{url}/v1", api_key=key, voice_id="en-us", encoding="pcm_24000",
                http_session=session,
            )  # fmt: skip
            found = []
            async with tts:
                for _ in itertools.repeat(None, 2):
                    async with tts.stream(conn_options=ONCE) as stream:
                        stream.push_text(TEXT)
                        stream.end_input()
                        found.append(sum([event.frame.duration async for event in stream]))
            return found

    assert all(is_close(seconds, length(TEXT), 0.05) for seconds in asyncio.run(run()))


@pytest.mark.parametrize("auto_mode", [False, True])
def test_an_agent_that_is_interrupted_hears_no_more_and_speaks_on_over_its_socket(
    url: str,
    key: str,
    length: Callable[[str], float],
    turns: Callable[..., float],
    auto_mode: bool,
) -> None:
    async def run() -> float:
        async with aiohttp.ClientSession() as session:
            tts = elevenlabs.TTS(
                base_url=f"{url}/v1", api_key=key, voice_id="en-us", encoding="pcm_24000",
                http_session=session, auto_mode=auto_mode,
            )  # fmt: skip
            async with tts:
                interrupted = tts.stream(conn_options=ONCE)
                # An agent is interrupted while its language model still writes.
                interrupted.push_text(LONG)
                async for _ in interrupted:
                    break
                await interrupted.aclose()
                if not auto_mode:
                    await asyncio.to_thread(wait_until, lambda: cancelled() == before + 1)
                async with tts.stream(conn_options=ONCE) as stream:
                    stream.push_text(TEXT)
                    stream.end_input()
                    return sum([event.frame.duration async for event in stream])

    def cancelled() -> float:
        return turns(door="elevenlabs", outcome="cancelled")

    def ended() -> float:
        return cancelled() + turns(door="elevenlabs", outcome="dropped")

    before, all_before = cancelled(), ended()
    assert is_close(asyncio.run(run()), length(TEXT), 0.05)
    wait_until(lambda: ended() == all_before + 1)
