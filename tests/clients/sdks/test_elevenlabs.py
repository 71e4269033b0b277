"""ElevenLabs' own Python library, unmodified; its WebSocket insists on TLS."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import PATIENCE, wait_until
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from listening import is_close, seconds
from tls import encrypted
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TEXT = "Hello there, my friend. How are you today?"
LONG = "This sentence is said again and again, until somebody hangs up. "
Length = Callable[[str], float]


@pytest.fixture(scope="module", params=["", "/elevenlabs"])
def client(url: str, key: str, request: pytest.FixtureRequest) -> ElevenLabs:
    return ElevenLabs(base_url=url + request.param, api_key=key)


def test_the_page_s_program_speaks(shown: Callable[..., dict[str, Any]], length: Length) -> None:
    left = shown("elevenlabs.md", 0)
    assert is_close(seconds(left["sound"]), length("Hello from my own server."), 0.15)


@pytest.mark.parametrize(
    ("name", "bytes_a_second"),
    [("pcm_24000", 48_000), ("pcm_16000", 32_000), ("ulaw_8000", 8_000), ("alaw_8000", 8_000)],
)
def test_samples_have_the_length_of_the_speech(
    client: ElevenLabs, length: Length, name: str, bytes_a_second: int
) -> None:
    for speak in (client.text_to_speech.convert, client.text_to_speech.stream):
        sound = b"".join(speak("en-us", text=TEXT, output_format=name))
        assert is_close(len(sound) / bytes_a_second, length(TEXT))


@pytest.mark.parametrize("name", ["mp3_44100_128", "mp3_22050_32", "opus_48000_64"])
def test_codecs_have_the_length_of_the_speech(
    client: ElevenLabs, length: Length, name: str
) -> None:
    sound = b"".join(client.text_to_speech.convert("en-us", text=TEXT, output_format=name))
    assert is_close(seconds(sound), length(TEXT), 0.1)


def check_characters(
    chars: list[str], starts: list[float], ends: list[float], whole: float
) -> None:
    assert "".join(chars) == TEXT
    assert all(start <= end for start, end in zip(starts, ends, strict=True))
    assert all(end <= start for end, start in itertools.pairwise([*ends[:1], *starts[1:]]) if start)
    assert starts == sorted(starts)
    assert 0.7 * whole < ends[-1] <= whole + 0.01


def test_timestamps_increase_and_cover_the_text(client: ElevenLabs, length: Length) -> None:
    answer = client.text_to_speech.convert_with_timestamps(
        "en-us", text=TEXT, output_format="pcm_24000"
    )
    whole = len(base64.b64decode(answer.audio_base_64)) / 48_000
    assert is_close(whole, length(TEXT))
    found = answer.alignment
    assert found is not None
    check_characters(
        found.characters,
        found.character_start_times_seconds,
        found.character_end_times_seconds,
        whole,
    )


def test_timestamps_that_are_streamed_do_too(client: ElevenLabs, length: Length) -> None:
    chars, starts, ends, sound = [], [], [], b""
    for line in client.text_to_speech.stream_with_timestamps(
        "en-us", text=TEXT, output_format="pcm_24000"
    ):
        sound += base64.b64decode(line.audio_base_64)
        if line.alignment:
            chars += line.alignment.characters
            starts += line.alignment.character_start_times_seconds
            ends += line.alignment.character_end_times_seconds
    assert is_close(len(sound) / 48_000, length(TEXT))
    check_characters(chars, starts, ends, len(sound) / 48_000)


def test_voices_are_listed_paged_and_found(client: ElevenLabs) -> None:
    every = [voice.voice_id for voice in client.voices.get_all().voices]
    assert "en-us" in every
    paged, token = [], None
    while True:
        page = client.voices.search(page_size=50, next_page_token=token)
        paged += [voice.voice_id for voice in page.voices]
        token = page.next_page_token
        if not page.has_more:
            break
    assert paged == every
    assert page.total_count == len(every)
    assert [v.voice_id for v in client.voices.search(search="esperanto").voices] == ["eo"]
    assert client.voices.get("en-us").voice_id == "en-us"


def test_models_are_those_of_elevenlabs_and_the_backends(client: ElevenLabs) -> None:
    assert {"eleven_flash_v2_5", "espeak", "tone"} <= {m.model_id for m in client.models.list()}


def test_a_voice_is_cloned_of_two_recordings_spoken_and_deleted(client: ElevenLabs) -> None:
    recording = b"".join(
        client.text_to_speech.convert(
            "high", model_id="tone", text=TEXT * 12, output_format="mp3_44100_128"
        )
    )
    made = client.voices.ivc.create(
        name="Somebody", files=[io.BytesIO(recording), io.BytesIO(recording)]
    )
    assert made.requires_verification is False
    assert b"".join(client.text_to_speech.convert(made.voice_id, text="Hello."))
    client.voices.delete(made.voice_id)
    with pytest.raises(ApiError):
        client.voices.get(made.voice_id)


@pytest.fixture(scope="module")
def secure(
    url: str, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ElevenLabs, pytest.MonkeyPatch]]:
    folder = tmp_path_factory.mktemp("tls")
    with encrypted(url, folder) as (address, certificate), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield ElevenLabs(base_url=address, api_key=key), patch


def test_text_is_streamed_in_and_sound_out(secure: tuple[ElevenLabs, Any], length: Length) -> None:
    tokens = (f"{word} " for word in TEXT.split())
    sound = b"".join(
        secure[0].text_to_speech.convert_realtime(
            "en-us", text=tokens, model_id="eleven_flash_v2_5", output_format="pcm_24000"
        )
    )
    assert is_close(len(sound) / 48_000, length(TEXT))


def test_a_socket_s_error_is_the_library_s_own(secure: tuple[ElevenLabs, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        list(secure[0].text_to_speech.convert_realtime("nobody", text=iter([TEXT])))
    assert caught.value.status_code == 1008
    assert caught.value.body["error"] == "unknown_voice"


def test_leaving_a_socket_ends_the_turn(
    secure: tuple[ElevenLabs, Any], turns: Callable[..., float]
) -> None:
    before = turns(door="elevenlabs", outcome="dropped")
    speaking = secure[0].text_to_speech.convert_realtime(
        "en-us", text=itertools.repeat(LONG, 2_000), output_format="pcm_24000"
    )
    assert next(speaking)
    speaking.close()
    wait_until(lambda: turns(door="elevenlabs", outcome="dropped") > before)


def test_hanging_up_ends_the_turn(client: ElevenLabs, turns: Callable[..., float]) -> None:
    before = turns(door="elevenlabs", outcome="dropped")
    speaking = client.text_to_speech.stream("en-us", text=LONG * 300, output_format="pcm_24000")
    assert next(speaking)
    speaking.close()
    wait_until(lambda: turns(door="elevenlabs", outcome="dropped") > before)


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"text": ""}, 400, "no_text"),
        ({"voice_id": "nobody"}, 404, "voice_not_found"),
        ({"model_id": "gpt"}, 404, "model_not_found"),
        ({"output_format": "ogg_1"}, 400, "unsupported_format"),
        ({"text": "x" * 2_000_001}, 413, "too_large"),
    ],
    ids=["text", "voice", "model", "format", "length"],
)
def test_what_is_wrong_is_the_library_s_own_error(
    client: ElevenLabs, changes: dict[str, Any], status: int, said: str
) -> None:
    asked: dict[str, Any] = {"voice_id": "en-us", "text": TEXT, **changes}
    with pytest.raises(ApiError) as caught:
        list(client.text_to_speech.convert(**asked))
    assert caught.value.status_code == status
    assert caught.value.body["detail"]["status"] == said


def test_a_wrong_field_is_a_validation_error(client: ElevenLabs) -> None:
    from elevenlabs import UnprocessableEntityError

    with pytest.raises(UnprocessableEntityError):
        list(client.text_to_speech.convert("en-us", text=TEXT, language_code="??"))


def test_a_wrong_key_is_refused_at_both_doors(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        list(ElevenLabs(base_url=url, api_key="no").text_to_speech.convert("en-us", text=TEXT))
    assert caught.value.status_code == 401
    assert caught.value.body["detail"]["status"] == "invalid_api_key"


def test_junk_on_a_socket_is_answered_and_closed_with_1008(url: str, key: str) -> None:
    address = f"{url.replace('http', 'ws', 1)}/v1/text-to-speech/en-us/multi-stream-input"
    for junk in ("junk", b"\0", "[1]", json.dumps({"text": 7})):
        with connect(address, additional_headers={"xi-api-key": key}) as socket:
            socket.send(junk)
            assert json.loads(socket.recv(PATIENCE))["code"] == 1008
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(PATIENCE)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1008
