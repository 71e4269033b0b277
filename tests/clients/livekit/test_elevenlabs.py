"""LiveKit's plugin for ElevenLabs, unmodified: contexts on one socket, timed words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import agent
import aiohttp
import pytest
from agent import ONCE, TEXT, seconds
from conftest import wait_until
from listening import is_close
from livekit.agents import APIError, APIStatusError
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.plugins import elevenlabs

LONG = "This sentence is said again and again, until somebody interrupts. " * 60


def plugin(url: str, key: str, **options: Any) -> agent.Plugin:
    settings = {"voice_id": "en-us", "encoding": "pcm_24000", **options}
    return partial(elevenlabs.TTS, base_url=f"{url}/v1", api_key=key, **settings)


@pytest.mark.parametrize("encoding", ["pcm_24000", "mp3_22050_32"])
def test_a_text_at_once_has_the_length_of_the_speech(
    url: str, key: str, length: Callable[[str], float], encoding: str
) -> None:
    [frames] = agent.speak(plugin(url, key, encoding=encoding), is_streamed=False)
    assert is_close(seconds(frames), length(TEXT), 0.1)


def test_words_of_a_stream_increase_and_cover_the_text(
    url: str, key: str, length: Callable[[str], float]
) -> None:
    [frames] = agent.speak(plugin(url, key))
    assert is_close(seconds(frames), length(TEXT), 0.05)
    timed = [word for f in frames for word in f.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
    assert "".join("".join(timed).split()) == "".join(TEXT.split())
    starts = [word.start_time for word in timed]
    assert starts == sorted(starts)
    assert all(word.start_time <= word.end_time <= seconds(frames) + 0.05 for word in timed)
    assert starts[-1] > 0.6 * seconds(frames)


def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Callable[[str], float]
) -> None:
    assert is_close(shown("elevenlabs.md", 1)["seconds"], length("Hello from my own server."), 0.1)


def test_what_is_wrong_is_its_own_error(url: str, key: str) -> None:
    with pytest.raises(APIStatusError) as caught:
        agent.speak(plugin(url, "wrong"), is_streamed=False)
    assert caught.value.status_code == 401
    with pytest.raises(APIStatusError) as caught:
        agent.speak(plugin(url, key, voice_id="nobody"), is_streamed=False)
    assert caught.value.status_code == 404
    with pytest.raises(APIError):
        agent.speak(plugin(url, key, voice_id="nobody"))


def test_a_second_turn_uses_the_same_socket(
    url: str, key: str, length: Callable[[str], float]
) -> None:
    for frames in agent.speak(plugin(url, key), TEXT, TEXT):
        assert is_close(seconds(frames), length(TEXT), 0.05)


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
            async with plugin(url, key, auto_mode=auto_mode)(http_session=session) as tts:
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
