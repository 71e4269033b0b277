"""OpenAI's own Python library, unmodified."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Callable
from typing import Any

import openai
import pytest
from conftest import wait_until
from listening import is_close, seconds

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody hangs up. " * 300
Length = Callable[[str], float]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    left = shown("openai.md", 0)
    assert is_close(seconds(left["sound"]), length("Hello from my own server."), 0.15)


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_every_format_has_the_length_of_the_speech(
    client: openai.OpenAI, length: Length, name: str
) -> None:
    answer = client.audio.speech.create(
        model="gpt-4o-mini-tts",
        voice="alloy",
        input=TEXT,
        response_format=name,  # type: ignore[arg-type]
    )
    sound = answer.read()
    assert answer.response.headers["x-request-id"].startswith("req_")
    assert answer.response.headers["content-type"].startswith("audio/")
    if name == "pcm":
        found = len(sound) / 2 / 24_000
    elif name == "wav":
        with wave.open(io.BytesIO(sound)) as reader:
            assert (reader.getframerate(), reader.getnchannels()) == (24_000, 1)
        found = (len(sound) - 44) / 2 / 24_000
    else:
        found = seconds(sound)
    exact = name in ("pcm", "wav", "flac")
    assert is_close(found, length(TEXT), 0.0 if exact else 0.1)


def test_events_carry_the_same_sound_and_its_usage(client: openai.OpenAI, length: Length) -> None:
    sound, done = b"", None
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="alloy",
        input=TEXT,
        response_format="pcm",
        stream_format="sse",
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if event["type"] == "speech.audio.delta":
                    sound += base64.b64decode(event["audio"])
                else:
                    done = event
    assert is_close(len(sound) / 48_000, length(TEXT))
    assert done is not None
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["total_tokens"] == len(TEXT) + done["usage"]["output_tokens"]


def test_speed_makes_it_shorter(client: openai.OpenAI, length: Length) -> None:
    answer = client.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm", speed=2.0
    )
    assert 0.4 < len(answer.read()) / 48_000 / length(TEXT) < 0.65


def test_a_voice_of_one_s_own_is_cloned_listed_and_spoken(
    client: openai.OpenAI, url: str, key: str
) -> None:
    recording = client.audio.speech.create(
        model="tone", voice="high", input=TEXT * 12, response_format="wav"
    ).read()
    made = client.post(
        "/audio/voices",
        body={"name": "My own voice", "consent": "cons_1234"},
        files={"audio_sample": ("me.wav", recording, "audio/wav")},
        options={"headers": {"Content-Type": "multipart/form-data"}},
        cast_to=object,
    )
    name = made["id"]  # type: ignore[index]
    anybody = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    listed = anybody.get("/audio/voices", cast_to=object)
    assert name in [voice["id"] for voice in listed["voices"]]  # type: ignore[index]
    answer = client.audio.speech.create(
        model="tts-1",
        voice={"id": name},
        input="Hello.",
        response_format="pcm",  # type: ignore[arg-type]
    )
    assert answer.read()


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {"tts-1", "espeak", "tone"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("espeak").id == "espeak"


def test_hanging_up_ends_the_turn(client: openai.OpenAI, turns: Callable[..., float]) -> None:
    before = turns(door="openai", outcome="dropped")
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG, response_format="pcm"
    ) as answer:
        assert next(answer.iter_bytes(1024))
    wait_until(lambda: turns(door="openai", outcome="dropped") > before)


@pytest.mark.parametrize(
    ("changes", "expected", "status", "code"),
    [
        ({"input": ""}, openai.BadRequestError, 400, "no_text"),
        ({"voice": "nobody"}, openai.NotFoundError, 404, "voice_not_found"),
        ({"model": "gpt-5"}, openai.NotFoundError, 404, "model_not_found"),
        ({"response_format": "ogg"}, openai.BadRequestError, 400, "invalid_request"),
        ({"speed": 9}, openai.BadRequestError, 400, "invalid_request"),
        ({"input": "x" * 2_000_001}, openai.APIStatusError, 413, "too_large"),
    ],
    ids=["text", "voice", "model", "format", "speed", "length"],
)
def test_what_is_wrong_is_the_library_s_own_error(
    client: openai.OpenAI, changes: dict[str, Any], expected: type, status: int, code: str
) -> None:
    asked: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT, **changes}
    with pytest.raises(expected) as caught:
        client.audio.speech.create(**asked)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id.startswith("req_")


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    assert caught.value.code == "invalid_api_key"


def test_without_a_transcriber_the_library_hears_why(client: openai.OpenAI) -> None:
    sound = client.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="wav"
    ).read()
    with pytest.raises(openai.InternalServerError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound))
    assert caught.value.code == "backend_not_installed"
