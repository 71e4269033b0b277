"""LiveKit's plugin for Deepgram, unmodified: Aura's socket, Flux's, and requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import agent
import pytest
from agent import TEXT, seconds
from listening import is_close
from livekit.agents import APIStatusError
from livekit.plugins import deepgram

VERSIONS = {"v1": deepgram.TTS, "v2": deepgram.TTSv2}


def plugin(url: str, key: str, version: str = "v1", model: str = "en-us") -> agent.Plugin:
    return partial(VERSIONS[version], base_url=f"{url}/{version}/speak", api_key=key, model=model)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_turns_have_the_length_of_their_speech(
    url: str, key: str, length: Callable[[str], float], version: str, is_streamed: bool
) -> None:
    texts = (TEXT, "And one turn more.")
    found = agent.speak(plugin(url, key, version), *texts, is_streamed=is_streamed)
    for text, frames in zip(texts, found, strict=True):
        assert is_close(seconds(frames), length(text), 0.05)


def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Callable[[str], float]
) -> None:
    assert is_close(shown("deepgram.md", 2)["seconds"], length("Hello from my own server."), 0.05)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_is_wrong_is_its_own_error(
    url: str, key: str, version: str, is_streamed: bool
) -> None:
    for used, model, status in (("wrong", "en-us", 401), (key, "nobody", 400)):
        with pytest.raises(APIStatusError) as caught:
            agent.speak(plugin(url, used, version, model), is_streamed=is_streamed)
        assert caught.value.status_code == status


def test_an_agent_that_is_interrupted_ends_the_turn(
    url: str, key: str, turns: Callable[..., float]
) -> None:
    agent.interrupt(plugin(url, key), turns, "deepgram")
