"""LiveKit's plugin for Cartesia, unmodified: a context for each turn, timed words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import agent
import pytest
from agent import TEXT, seconds
from listening import is_close
from livekit.agents import APIError, APIStatusError
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.plugins import cartesia

Length = Callable[[str], float]


def plugin(url: str, key: str, **options: Any) -> agent.Plugin:
    return partial(cartesia.TTS, base_url=url, api_key=key, **{"voice": "en-us", **options})


@pytest.mark.parametrize("is_streamed", [False, True])
def test_turns_have_the_length_of_their_speech(
    url: str, key: str, length: Length, is_streamed: bool
) -> None:
    texts = (TEXT, "And one turn more.")
    found = agent.speak(plugin(url, key), *texts, is_streamed=is_streamed)
    for text, frames in zip(texts, found, strict=True):
        assert is_close(seconds(frames), length(text), 0.05)


def test_words_of_a_stream_increase_and_cover_the_text(url: str, key: str, length: Length) -> None:
    [frames] = agent.speak(plugin(url, key))
    timed = [word for f in frames for word in f.userdata.get(USERDATA_TIMED_TRANSCRIPT, ())]
    assert "".join("".join(timed).split()) == "".join(TEXT.split())
    starts = [word.start_time for word in timed]
    assert starts == sorted(starts)
    assert all(word.start_time <= word.end_time <= length(TEXT) + 0.05 for word in timed)
    assert starts[-1] > 0.6 * length(TEXT)


def test_speed_makes_it_shorter(url: str, key: str, length: Length) -> None:
    [frames] = agent.speak(plugin(url, key, speed=1.5))
    assert seconds(frames) < 0.8 * length(TEXT)


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    assert is_close(shown("cartesia.md", 2)["seconds"], length("Hello from my own server."), 0.05)


def test_what_is_wrong_is_its_own_error(url: str, key: str) -> None:
    for is_streamed in (False, True):
        with pytest.raises(APIStatusError) as caught:
            agent.speak(plugin(url, "wrong"), is_streamed=is_streamed)
        assert caught.value.status_code == 401
    with pytest.raises(APIStatusError) as caught:
        agent.speak(plugin(url, key, voice="nobody"), is_streamed=False)
    assert caught.value.status_code == 404
    with pytest.raises(APIError):
        agent.speak(plugin(url, key, voice="nobody"))


def test_an_agent_that_is_interrupted_ends_the_turn(
    url: str, key: str, turns: Callable[..., float]
) -> None:
    agent.interrupt(plugin(url, key), turns, "cartesia")
