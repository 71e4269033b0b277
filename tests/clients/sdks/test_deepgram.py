"""Deepgram's own Python library, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from conftest import wait_until
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.errors import BadRequestError
from deepgram.speak.v1.types import SpeakV1Text
from deepgram.speak.v2.types import (
    SpeakV2Configure,
    SpeakV2ConfigureSuccess,
    SpeakV2Connected,
    SpeakV2Error,
    SpeakV2SessionMetadata,
    SpeakV2Speak,
    SpeakV2SpeechMetadata,
)
from listening import is_close, seconds

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody hangs up. " * 300
Length = Callable[[str], float]


@pytest.fixture(scope="module")
def here(url: str) -> DeepgramClientEnvironment:
    ws = url.replace("http", "ws", 1)
    return DeepgramClientEnvironment(base=url, production=ws, agent=ws, agent_rest=url)


@pytest.fixture(scope="module")
def client(here: DeepgramClientEnvironment, key: str) -> DeepgramClient:
    return DeepgramClient(api_key=key, environment=here)


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    left = shown("deepgram.md", 0)
    assert is_close(len(left["sound"]) / 48_000, length("Hello from my own server."))


def test_the_page_s_interruption_tells_what_was_heard(
    shown: Callable[..., dict[str, Any]],
) -> None:
    left = shown("deepgram.md", 1)
    text = "The train leaves at nine in the morning. "
    assert left["spoken"] + left["remaining"] == text
    assert left["spoken"].startswith("The")
    assert "morning" in left["remaining"]


@pytest.mark.parametrize(
    ("encoding", "options", "slack"),
    [
        ("mp3", {}, 0.1),
        ("opus", {"container": "ogg"}, 0.1),
        ("flac", {}, 0.0),
        ("aac", {}, 0.15),
        ("linear16", {"container": "wav", "sample_rate": 16_000}, 0.0),
        ("mulaw", {"container": "wav", "sample_rate": 8_000}, 0.0),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_encoding_has_the_length_of_the_speech(
    client: DeepgramClient, length: Length, version: str, encoding: str, options: Any, slack: float
) -> None:
    parts = getattr(client.speak, version).audio.generate(
        model="en-us", encoding=encoding, text=TEXT, **options
    )
    assert is_close(seconds(b"".join(parts)), length(TEXT), slack)


def test_a_socket_speaks_what_is_flushed(client: DeepgramClient, length: Length) -> None:
    sound, kinds = b"", []
    with client.speak.v1.connect(model="en-us", encoding="linear16", sample_rate="24000") as socket:
        for word in TEXT.split():
            socket.send_text(SpeakV1Text(text=f"{word} "))
        socket.send_flush()
        for message in socket:
            if isinstance(message, bytes):
                sound += message
                continue
            kinds.append(message.type)
            if message.type == "Flushed":
                socket.send_close()
    assert kinds == ["Metadata", "Flushed"]
    assert is_close(len(sound) / 48_000, length(TEXT))


def test_clear_stops_it(client: DeepgramClient) -> None:
    sound, is_cleared = 0, False
    with client.speak.v1.connect(model="en-us", encoding="mulaw", sample_rate="8000") as socket:
        socket.send_text(SpeakV1Text(text=LONG))
        for message in socket:
            if isinstance(message, bytes):
                assert not is_cleared
                if not sound:
                    socket.send_clear()
                sound += len(message)
            elif message.type == "Cleared":
                is_cleared = True
                socket.send_close()
    assert is_cleared


def test_the_turns_of_flux_have_their_figures(client: DeepgramClient, length: Length) -> None:
    texts = (TEXT, "And this is another turn.")
    sound, told = b"", []
    with client.speak.v2.connect(model="en-us", encoding="linear16", sample_rate="24000") as socket:
        for text in texts:
            socket.send_speak(SpeakV2Speak(text=text))
            socket.send_flush()
        socket.send_close()
        for message in socket:
            if isinstance(message, bytes):
                sound += message
            else:
                told.append(message)
    assert isinstance(told[0], SpeakV2Connected)
    assert isinstance(told[-1], SpeakV2SessionMetadata)
    figures = [message for message in told if isinstance(message, SpeakV2SpeechMetadata)]
    for text, turn in zip(texts, figures, strict=True):
        assert is_close(turn.audio_duration_ms / 1000, length(text))
        assert turn.input_character_count == len(text)
    assert is_close(len(sound) / 48_000, sum(map(length, texts)))


def test_flux_takes_another_speed(client: DeepgramClient, length: Length) -> None:
    with client.speak.v2.connect(model="en-us") as socket:
        socket.send_configure(SpeakV2Configure(speed=1.5))
        socket.send_speak(SpeakV2Speak(text=TEXT))
        socket.send_flush()
        for message in socket:
            if isinstance(message, SpeakV2ConfigureSuccess):
                assert message.applied.speed == 1.5
            elif isinstance(message, SpeakV2SpeechMetadata):
                assert message.audio_duration_ms / 1000 < 0.8 * length(TEXT)
                break


def test_the_asynchronous_client_speaks_too(
    here: DeepgramClientEnvironment, key: str, length: Length
) -> None:
    async def spoken() -> bytes:
        client = AsyncDeepgramClient(api_key=key, environment=here)
        sound = b""
        async with client.speak.v1.connect(model="en-us") as socket:
            await socket.send_text(SpeakV1Text(text=TEXT))
            await socket.send_close()
            async for message in socket:
                sound += message if isinstance(message, bytes) else b""
        return sound

    assert is_close(len(asyncio.run(spoken())) / 48_000, length(TEXT))


def test_hanging_up_ends_the_turn(client: DeepgramClient, turns: Callable[..., float]) -> None:
    before = turns(door="deepgram", outcome="dropped")
    with client.speak.v1.connect(model="en-us") as socket:
        socket.send_text(SpeakV1Text(text=LONG))
        while not isinstance(socket.recv(), bytes):
            pass
    wait_until(lambda: turns(door="deepgram", outcome="dropped") > before)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"text": ""}, "NO_TEXT"),
        ({"model": "nobody"}, "UNKNOWN_VOICE"),
        ({"encoding": "mp4"}, "UNSUPPORTED_FORMAT"),
        ({"sample_rate": 1}, "UNSUPPORTED_FORMAT"),
    ],
    ids=["text", "model", "encoding", "rate"],
)
def test_what_is_wrong_is_the_library_s_own_error(
    client: DeepgramClient, changes: dict[str, Any], code: str
) -> None:
    asked: dict[str, Any] = {"model": "en-us", "text": TEXT, "encoding": "linear16", **changes}
    with pytest.raises(BadRequestError) as caught:
        list(client.speak.v1.audio.generate(**asked))
    assert caught.value.body["err_code"] == code


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_wrong_key_is_the_library_s_own_error(
    here: DeepgramClientEnvironment, version: str
) -> None:
    client = DeepgramClient(api_key="wrong", environment=here)
    with pytest.raises(ApiError) as caught:
        list(client.speak.v1.audio.generate(model="en-us", text=TEXT))
    assert (caught.value.status_code, caught.value.body["err_code"]) == (401, "INVALID_AUTH")
    assert asyncio.run(_refusal(here, "wrong", version, "en-us")) == 401


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_wrong_model_is_refused_in_the_handshake(
    here: DeepgramClientEnvironment, key: str, version: str
) -> None:
    assert asyncio.run(_refusal(here, key, version, "nobody")) == 400


async def _refusal(here: DeepgramClientEnvironment, key: str, version: str, model: str) -> Any:
    """The status of the library's own error. (Its other client lets the socket's error pass.)"""
    client = AsyncDeepgramClient(api_key=key, environment=here)
    with pytest.raises(ApiError) as caught:
        async with getattr(client.speak, version).connect(model=model):
            pass
    return caught.value.status_code


def test_a_message_that_is_too_large_is_an_error_message(client: DeepgramClient) -> None:
    with client.speak.v2.connect(model="en-us") as socket:
        socket.send_speak(SpeakV2Speak(text=LONG * 10))
        while not isinstance(told := socket.recv(), SpeakV2Error):
            pass
    assert told.code == "TOO_LARGE"
