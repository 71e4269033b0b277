"""Pipecat's services for Deepgram and Cartesia, unmodified, each in a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from listening import is_close
from pipecat.frames.frames import ErrorFrame, Frame, InterruptionFrame, TTSSpeakFrame, TTSTextFrame
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.cartesia.tts import CartesiaHttpTTSService, CartesiaTTSService
from pipecat.services.deepgram.flux.tts import DeepgramFluxTTSService
from pipecat.services.deepgram.tts import DeepgramHttpTTSService, DeepgramTTSService
from pipecat.tests.utils import SleepFrame, run_test
from test_pipecat import LONG, TEXT, Length, reply, run, seconds


def deepgram(url: str, key: str, voice: str = "en-us") -> DeepgramTTSService:
    settings = DeepgramTTSService.Settings(voice=voice)
    here = url.replace("http", "ws", 1)
    return DeepgramTTSService(api_key=key, base_url=here, settings=settings)


def flux(url: str, key: str, voice: str = "en-us") -> DeepgramFluxTTSService:
    settings = DeepgramFluxTTSService.Settings(voice=voice)
    here = url.replace("http", "ws", 1)
    return DeepgramFluxTTSService(api_key=key, url=f"{here}/v2/speak", settings=settings)


def cartesia(url: str, key: str, voice: str = "en-us") -> CartesiaTTSService:
    settings = CartesiaTTSService.Settings(voice=voice)
    here = url.replace("http", "ws", 1)
    return CartesiaTTSService(api_key=key, url=f"{here}/tts/websocket", settings=settings)


SERVICES: list[Callable[..., Any]] = [deepgram, flux, cartesia]


@pytest.mark.parametrize("make", SERVICES)
def test_a_text_and_a_reply_have_the_length_of_the_speech(
    url: str, key: str, length: Length, make: Callable[..., Any]
) -> None:
    for frames in ([TTSSpeakFrame(TEXT)], reply(TEXT)):
        down, _ = run(make(url, key), *frames)
        assert is_close(seconds(down), length(TEXT), 0.1)


def test_words_of_a_reply_increase_and_cover_the_text(url: str, key: str) -> None:
    down, _ = run(cartesia(url, key), *reply(TEXT))
    words = [frame for frame in down if isinstance(frame, TTSTextFrame)]
    assert " ".join(frame.text for frame in words).split() == TEXT.split()
    times = [frame.pts for frame in words]
    assert all(times)
    assert times == sorted(times)


@pytest.mark.parametrize("make", SERVICES)
def test_an_interruption_stops_it(
    url: str, key: str, length: Length, make: Callable[..., Any]
) -> None:
    # Deepgram's sound bears no name of its turn: what was on its way when the user spoke counts as
    # the next turn's, if that begins before it has arrived.
    for patience in (0.2, 2.0, 10.0):
        frames = [*reply(LONG), SleepFrame(sleep=0.5), InterruptionFrame()]
        down, _ = run(make(url, key), *frames, SleepFrame(sleep=patience), *reply(TEXT))
        cut = next(n for n, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
        assert seconds(down[:cut]) < length(LONG)
        if is_close(seconds(down[cut:]), length(TEXT), 0.1):
            return
    pytest.fail(f"{seconds(down[cut:]):.1f} s were heard behind the interruption")


def test_requests_have_the_length_of_the_speech(url: str, key: str, length: Length) -> None:
    async def speak(make: Callable[[aiohttp.ClientSession], Any]) -> list[Frame]:
        async with aiohttp.ClientSession() as session:
            down, _ = await run_test(
                make(session),
                frames_to_send=[TTSSpeakFrame(TEXT)],
                pipeline_params=PipelineParams(audio_out_sample_rate=24_000),
                start_timeout=60.0,
            )
            return list(down)

    def by_deepgram(session: aiohttp.ClientSession) -> Any:
        settings = DeepgramHttpTTSService.Settings(voice="en-us")
        return DeepgramHttpTTSService(
            api_key=key, base_url=url, aiohttp_session=session, settings=settings
        )

    def by_cartesia(session: aiohttp.ClientSession) -> Any:
        settings = CartesiaHttpTTSService.Settings(voice="en-us")
        return CartesiaHttpTTSService(
            api_key=key, base_url=url, aiohttp_session=session, settings=settings
        )

    for make in (by_deepgram, by_cartesia):
        assert is_close(seconds(asyncio.run(speak(make))), length(TEXT), 0.05)


@pytest.mark.parametrize("make", SERVICES)
@pytest.mark.parametrize("mistake", ["key", "voice"])
def test_what_is_wrong_is_an_error_frame(
    url: str, key: str, make: Callable[..., Any], mistake: str
) -> None:
    # The error comes when it comes, and a pipeline does not wait for one.
    for patience in (0.5, 5.0, 20.0):
        service = make(url, "wrong") if mistake == "key" else make(url, key, "nobody")
        _, up = run(service, TTSSpeakFrame(TEXT), SleepFrame(sleep=patience), quiet=3.0)
        if any(isinstance(frame, ErrorFrame) for frame in up):
            return
    pytest.fail("no error was told")


@pytest.mark.parametrize("page", ["deepgram.md", "cartesia.md"])
def test_the_page_s_program_speaks(
    shown: Callable[..., dict[str, Any]], length: Length, page: str
) -> None:
    down, _ = run(shown(page, 3)["tts"], TTSSpeakFrame("Hello from my own server."))
    assert is_close(seconds(down), length("Hello from my own server."), 0.05)
