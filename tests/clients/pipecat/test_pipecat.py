"""Pipecat's services for OpenAI and ElevenLabs, unmodified, each in a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from listening import is_close
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.elevenlabs.tts import ElevenLabsHttpTTSService, ElevenLabsTTSService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.tests.utils import SleepFrame, run_test

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody interrupts. " * 100
Length = Callable[[str], float]


def run(service: Any, *frames: Frame, quiet: float = 60.0) -> tuple[list[Frame], list[Frame]]:
    """What goes down and up when these frames are sent through a service.

    ``quiet``: so many seconds without sound are the end of a turn that was not told its end. Of its
    own accord a service waits for three, which on a busy machine may pass in the middle.
    """
    service._stop_frame_timeout_s = quiet
    params = PipelineParams(audio_out_sample_rate=24_000)
    down, up = asyncio.run(
        run_test(service, frames_to_send=frames, pipeline_params=params, start_timeout=60.0)
    )
    return list(down), list(up)


def seconds(frames: list[Frame]) -> float:
    return sum(
        len(frame.audio) / 2 / frame.sample_rate
        for frame in frames
        if isinstance(frame, TTSAudioRawFrame)
    )


def reply(text: str) -> list[Frame]:
    """A language model's reply, token by token."""
    tokens = [LLMTextFrame(f"{word} ") for word in text.split()]
    return [LLMFullResponseStartFrame(), *tokens, LLMFullResponseEndFrame()]


def elevenlabs(url: str, key: str, voice: str = "en-us") -> ElevenLabsTTSService:
    settings = ElevenLabsTTSService.Settings(voice=voice)
    return ElevenLabsTTSService(api_key=key, url=url.replace("http", "ws", 1), settings=settings)


def openai(url: str, key: str) -> OpenAITTSService:
    settings = OpenAITTSService.Settings(voice="alloy")
    return OpenAITTSService(api_key=key, base_url=f"{url}/v1", settings=settings)


@pytest.mark.parametrize("make", [openai, elevenlabs])
def test_a_text_has_the_length_of_the_speech(
    url: str, key: str, length: Length, make: Callable[[str, str], Any]
) -> None:
    down, _ = run(make(url, key), TTSSpeakFrame(TEXT))
    assert is_close(seconds(down), length(TEXT))


def test_words_of_a_reply_increase_and_cover_the_text(url: str, key: str, length: Length) -> None:
    down, _ = run(elevenlabs(url, key), *reply(TEXT))
    assert is_close(seconds(down), length(TEXT), 0.1)
    words = [frame for frame in down if isinstance(frame, TTSTextFrame)]
    assert " ".join(frame.text for frame in words).split() == TEXT.split()
    times = [frame.pts for frame in words]
    assert all(times)
    assert times == sorted(times)


def test_http_with_timestamps_has_the_length_of_the_speech(
    url: str, key: str, length: Length
) -> None:
    async def speak() -> list[Frame]:
        async with aiohttp.ClientSession() as session:
            service = ElevenLabsHttpTTSService(
                api_key=key,
                base_url=url,
                aiohttp_session=session,
                settings=ElevenLabsHttpTTSService.Settings(voice="en-us"),
            )
            params = PipelineParams(audio_out_sample_rate=24_000)
            down, _ = await run_test(
                service,
                frames_to_send=[TTSSpeakFrame(TEXT)],
                pipeline_params=params,
                start_timeout=60.0,
            )
            return list(down)

    down = asyncio.run(speak())
    assert is_close(seconds(down), length(TEXT))
    words = [frame.text for frame in down if isinstance(frame, TTSTextFrame)]
    assert " ".join(words).split() == TEXT.split()


def test_an_interruption_stops_it(url: str, key: str, length: Length) -> None:
    frames = [*reply(LONG), SleepFrame(sleep=0.5), InterruptionFrame(), *reply(TEXT)]
    down, _ = run(elevenlabs(url, key), *frames)
    cut = next(n for n, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    assert seconds(down[:cut]) < length(LONG)
    assert is_close(seconds(down[cut:]), length(TEXT), 0.1)


def test_what_is_wrong_is_an_error_frame(url: str, key: str) -> None:
    for make in (lambda: openai(url, "wrong"), lambda: elevenlabs(url, key, "nobody")):
        # The error comes when it comes, and a pipeline does not wait for one.
        for patience in (0.5, 5.0, 20.0):
            _, up = run(make(), TTSSpeakFrame(TEXT), SleepFrame(sleep=patience), quiet=3.0)
            if any(isinstance(frame, ErrorFrame) for frame in up):
                break
        else:
            pytest.fail("no error was told")


@pytest.mark.parametrize("page", ["openai.md", "elevenlabs.md"])
def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Length, page: str
) -> None:
    down, _ = run(shown(page, 2)["tts"], TTSSpeakFrame("Hello from my own server."))
    assert is_close(seconds(down), length("Hello from my own server."))
