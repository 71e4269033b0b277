"""Cartesia's own Python library, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import cartesia
import pytest
from cartesia import AsyncCartesia, Cartesia
from conftest import wait_until
from listening import is_close, seconds

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody hangs up. " * 300
PCM: Any = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000}
VOICE: Any = {"mode": "id", "id": "en-us"}
Length = Callable[[str], float]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> Cartesia:
    return Cartesia(
        api_key=key,
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        max_retries=0,
    )


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    left = shown("cartesia.md", 0)
    assert is_close(len(left["sound"]) / 48_000, length("Hello from my own server."))


def test_the_page_s_context_speaks_and_tells_its_words(
    shown: Callable[..., dict[str, Any]], length: Length
) -> None:
    left = shown("cartesia.md", 1)
    assert is_close(len(left["sound"]) / 48_000, length("The train leaves at nine."))
    assert " ".join(left["words"]) == "The train leaves at nine."


@pytest.mark.parametrize(
    ("fmt", "slack"),
    [
        ({"container": "wav", "encoding": "pcm_f32le", "sample_rate": 44_100}, 0.0),
        ({"container": "wav", "encoding": "pcm_s16le", "sample_rate": 22_050}, 0.0),
        ({"container": "mp3", "sample_rate": 44_100, "bit_rate": 128_000}, 0.1),
    ],
    ids=["f32", "s16", "mp3"],
)
def test_every_container_has_the_length_of_the_speech(
    client: Cartesia, length: Length, fmt: Any, slack: float
) -> None:
    answer = client.tts.generate(
        model_id="sonic-3", voice=VOICE, transcript=TEXT, output_format=fmt
    )
    assert is_close(seconds(answer.read()), length(TEXT), slack)


def test_events_carry_sound_and_the_times_of_words(client: Cartesia, length: Length) -> None:
    sound, words, times = b"", [], []
    events = client.tts.generate_sse(
        model_id="sonic-3", voice=VOICE, transcript=TEXT, output_format=PCM, add_timestamps=True
    )
    for event in events:
        if event.type == "chunk":
            sound += event.audio or b""
        elif event.type == "timestamps":
            words += event.word_timestamps.words
            times += event.word_timestamps.start
    assert event.type == "done"
    assert is_close(len(sound) / 48_000, length(TEXT))
    assert " ".join(words) == TEXT
    assert times == sorted(times)


def test_two_contexts_share_a_socket(client: Cartesia, length: Length) -> None:
    texts = {"a": TEXT, "b": "And this is said beside it."}
    sound = dict.fromkeys(texts, b"")
    with client.tts.websocket_connect() as socket:
        contexts = {name: socket.context(context_id=name) for name in texts}
        for name, context in contexts.items():
            for word in texts[name].split():
                context.send(
                    transcript=f"{word} ", voice=VOICE, model_id="sonic-3", output_format=PCM
                )
            context.no_more_inputs()
        for name, context in contexts.items():
            for event in context.receive():
                sound[name] += (event.audio or b"") if event.type == "chunk" else b""
            assert event.type == "done"
    for name, text in texts.items():
        assert is_close(len(sound[name]) / 48_000, length(text))


def test_a_flush_is_answered(client: Cartesia, length: Length) -> None:
    with client.tts.websocket_connect() as socket:
        context = socket.context()
        asked: Any = {"voice": VOICE, "model_id": "sonic-3", "output_format": PCM}
        context.send(transcript="One two three.", flush=True, **asked)
        sound = b""
        for event in context.receive():
            if event.type == "chunk":
                sound += event.audio or b""
            elif event.type == "flush_done":
                assert event.flush_id == 1
                assert is_close(len(sound) / 48_000, length("One two three."))
                context.no_more_inputs()
        assert event.type == "done"


def test_a_cancel_stops_the_context(client: Cartesia) -> None:
    with client.tts.websocket_connect() as socket:
        context = socket.context(context_id="a")
        context.send(
            transcript=LONG, voice=VOICE, model_id="sonic-3", output_format=PCM, continue_=False
        )
        events = context.receive()
        assert next(events).type == "chunk"
        context.cancel()
        for event in socket:
            if event.type == "done":
                break
        other = socket.context(context_id="b")
        other.send(
            transcript="One.", voice=VOICE, model_id="sonic-3", output_format=PCM, continue_=False
        )
        # No sound of the first comes any more.
        assert {event.context_id for event in socket_until_done(socket)} == {"b"}


def socket_until_done(socket: Any) -> list[Any]:
    events = []
    for event in socket:
        events.append(event)
        if event.type == "done":
            break
    return events


def test_the_asynchronous_client_speaks_too(url: str, key: str, length: Length) -> None:
    async def spoken() -> bytes:
        ws = url.replace("http", "ws", 1)
        sound = b""
        async with AsyncCartesia(api_key=key, base_url=url, websocket_base_url=ws) as client:
            async with client.tts.websocket_connect() as socket:
                context = socket.context(model_id="sonic-3", voice=VOICE, output_format=PCM)
                await context.push(TEXT)
                await context.no_more_inputs()
                async for event in context.receive():
                    sound += (event.audio or b"") if event.type == "chunk" else b""
        return sound

    assert is_close(len(asyncio.run(spoken())) / 48_000, length(TEXT))


def test_pages_of_voices_lead_to_all_of_them(client: Cartesia) -> None:
    ids = [voice.id for voice in client.voices.list(limit=50)]
    assert len(ids) == len(set(ids)) > 100
    assert {"en-us", "high"} <= set(ids)
    assert client.voices.get("en-us").id == "en-us"


def test_a_recording_becomes_a_voice(client: Cartesia) -> None:
    wav: Any = {"container": "wav", "encoding": "pcm_s16le", "sample_rate": 24_000}
    recording = client.tts.generate(
        model_id="tone", voice="high", transcript=TEXT * 12, output_format=wav
    ).read()
    made = client.voices.clone(
        clip=("me.wav", recording), name="Cartesian", language="en", description="Mine."
    )
    assert made.id in [voice.id for voice in client.voices.list(is_owner=True)]


def test_hanging_up_ends_the_turn(client: Cartesia, turns: Callable[..., float]) -> None:
    before = turns(door="cartesia", outcome="dropped")
    with client.tts.websocket_connect() as socket:
        context = socket.context()
        context.send(transcript=LONG, voice=VOICE, model_id="sonic-3", output_format=PCM)
        assert next(context.receive()).type == "chunk"
    wait_until(lambda: turns(door="cartesia", outcome="dropped") > before)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transcript": ""}, cartesia.BadRequestError),
        ({"voice": {"mode": "id", "id": "nobody"}}, cartesia.NotFoundError),
        ({"model_id": "nothing"}, cartesia.NotFoundError),
        ({"output_format": {**PCM, "encoding": "mp4"}}, cartesia.BadRequestError),
    ],
    ids=["text", "voice", "model", "format"],
)
def test_what_is_wrong_is_the_library_s_own_error(
    client: Cartesia, changes: dict[str, Any], expected: type[cartesia.APIStatusError]
) -> None:
    asked: dict[str, Any] = {
        "model_id": "sonic-3", "voice": VOICE, "transcript": TEXT, "output_format": PCM, **changes
    }  # fmt: skip
    with pytest.raises(expected) as caught:
        client.tts.generate(**asked)
    assert caught.value.body["error_code"]  # type: ignore[index]


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    client = Cartesia(api_key="wrong", base_url=url, max_retries=0)
    with pytest.raises(cartesia.AuthenticationError):
        client.tts.generate(model_id="sonic-3", voice=VOICE, transcript=TEXT, output_format=PCM)


def test_an_error_on_the_socket_is_an_event(client: Cartesia) -> None:
    with client.tts.websocket_connect() as socket:
        context = socket.context()
        context.send(transcript=TEXT, voice={"mode": "id", "id": "nobody"}, output_format=PCM)
        [event] = context.receive()
    assert event.type == "error"
    assert event.error_code == "unknown_voice"
    assert event.status_code == 404
