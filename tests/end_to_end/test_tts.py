"""``POST /tts`` and ``WS /stream``: a whole text in, its sound out."""

from __future__ import annotations

import io
import json
import socket
import struct
import wave
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from tests.end_to_end.conftest import PATIENCE, Server, running, wait_until
from tests.end_to_end.talking import levels, talk
from voice_server.audio.encode import UNKNOWN_SIZE

STORY = "The first sentence is here. Then comes another one! And is this the last? It is."
LONG = " ".join(f"Sentence number {n} of a long speech." for n in range(200))


def pcm_of(http: httpx.Client, **body: object) -> bytes:
    answer = http.post("/tts", json={"text": STORY, "format": "pcm", **body})
    assert answer.status_code == 200, answer.text
    return answer.content


# -- POST /tts -----------------------------------------------------------------------------------


def test_a_text_is_answered_with_a_wav(http: httpx.Client) -> None:
    answer = http.post("/tts", json={"text": STORY, "backend": "chaos"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert struct.unpack_from("<I", answer.content, 4) == (UNKNOWN_SIZE,)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        samples = file.readframes(10**9)
    assert len(levels(samples)) == len(STORY.split())


def test_options_voice_and_seed_are_heard(http: httpx.Client) -> None:
    low, high = pcm_of(http, voice="low"), pcm_of(http, voice="high")
    assert low != high
    assert len(pcm_of(http, opts={"speed": 2.0})) == pytest.approx(len(low) / 2, rel=0.02)
    seeded = [pcm_of(http, backend="babble", seed=seed) for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_an_alias_is_a_voice(http: httpx.Client) -> None:
    assert pcm_of(http, voice="af_heart") == pcm_of(http, voice="high")


@pytest.mark.parametrize(
    ("fmt", "content_type", "codec", "rate"),
    [
        ("wav", "audio/wav", "pcm_s16le", 24_000),
        ("mp3", "audio/mpeg", "mp3float", 24_000),
        ("opus", "audio/ogg", "opus", 48_000),
        ("flac", "audio/flac", "flac", 24_000),
        ("aac", "audio/aac", "aac", 24_000),
        ({"encoding": "opus", "container": "webm"}, "audio/webm", "opus", 48_000),
        ({"encoding": "wav", "sample_rate": 16_000}, "audio/wav", "pcm_s16le", 16_000),
        ({"encoding": "mulaw", "container": "wav"}, "audio/wav", "pcm_mulaw", 8_000),
    ],
)
def test_every_format_can_be_decoded(
    http: httpx.Client, fmt: object, content_type: str, codec: str, rate: int
) -> None:
    answer = http.post("/tts", json={"text": STORY, "format": fmt})
    assert answer.headers["content-type"] == content_type
    with av.open(io.BytesIO(answer.content)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        assert codec.startswith(stream.codec_context.name.removesuffix("float"))
        assert stream.rate == rate
    assert samples / rate == pytest.approx(len(STORY.split()) * 0.05, abs=0.12)


@pytest.mark.parametrize(
    ("fmt", "content_type", "bytes_a_second"),
    [
        ("pcm", "audio/pcm;rate=24000;channels=1", 48_000),
        ({"encoding": "pcm", "sample_rate": 8_000}, "audio/pcm;rate=8000;channels=1", 16_000),
        ("mulaw", "audio/basic", 8_000),
        ("alaw", "audio/x-alaw-basic", 8_000),
    ],
)
def test_bare_samples_have_the_length_of_the_speech(
    http: httpx.Client, fmt: object, content_type: str, bytes_a_second: int
) -> None:
    answer = http.post("/tts", json={"text": STORY, "format": fmt})
    assert answer.headers["content-type"] == content_type
    seconds = len(STORY.split()) * 0.05
    assert len(answer.content) / bytes_a_second == pytest.approx(seconds, abs=0.002)


def test_the_answer_begins_while_the_rest_is_being_made(server: Server, http: httpx.Client) -> None:
    body = {"text": "This is well. Then hang for ever.", "backend": "chaos"}
    with http.stream("POST", "/tts", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        sound = answer.iter_raw()
        assert next(sound)
        assert server.turns == 1


REFUSED = [
    ({}, 422, "invalid_request", "text › this field is missing"),
    ({"text": 5}, 422, "invalid_request", "text › expected text, got 5"),
    ({"text": None}, 422, "invalid_request", "text › expected text, got null"),
    ({"text": ""}, 400, "no_text", "text"),
    ({"text": " \n"}, 400, "no_text", "text"),
    ({"text": "🙂"}, 400, "no_text", "nothing"),
    ({"text": "a", "voice": "nobody"}, 404, "unknown_voice", "low, high"),
    ({"text": "a", "backend": "nothing"}, 404, "unknown_backend", "known: babble"),
    ({"text": "a", "opts": {"sped": 1}}, 400, "unknown_option", "did you mean 'speed'"),
    ({"text": "a", "opts": {"speed": 9}}, 400, "bad_option", "from 0.25 to 4"),
    ({"text": "a", "opts": [1]}, 422, "invalid_request", "opts › expected a map"),
    ({"text": "a", "format": "ogg"}, 400, "unsupported_format", "opus, mp3"),
    ({"text": "a", "format": 5}, 422, "invalid_request", "format › "),
    (
        {"text": "a", "format": {"encoding": "opus", "sample_rate": 44_100}},
        400,
        "unsupported_format",
        "48000",
    ),
    ({"text": "a", "fromat": "wav"}, 422, "invalid_request", "did you mean 'format'"),
    ({"text": "a", "seed": -1}, 422, "invalid_request", "seed › expected an integer ≥ 0"),
    ({"text": "a", "seed": "1"}, 422, "invalid_request", "seed › expected an integer"),
    ({"text": "a", "language": "!"}, 422, "invalid_request", "language › expected a tag"),
    ({"text": "a", "voice": "v" * 201}, 422, "invalid_request", "at most 200 characters"),
    ({"text": "a", "instructions": "warm"}, 400, "unknown_option", "takes no instructions"),
    ({"text": "raise it", "backend": "chaos"}, 502, "synthesis_failed", "model said no"),
    ({"text": "refuse it", "backend": "chaos"}, 400, "unsupported_language", "no such language"),
    ({"text": "oom it", "backend": "chaos"}, 503, "out_of_memory", "4 TB wanted"),
]


@pytest.mark.parametrize(("body", "status", "code", "says"), REFUSED)
def test_a_mistake_is_answered_with_its_status_and_remedy(
    http: httpx.Client, body: dict[str, object], status: int, code: str, says: str
) -> None:
    answer = http.post("/tts", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert says in problem["detail"]
    assert problem.keys() == {"detail", "code", "retryable"}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b'{"text": "\\ud800"}', b"[" * 50_000])
def test_a_body_that_is_no_json_is_told_so(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/tts", content=content)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_json"


def test_json_is_taken_under_any_content_type(http: httpx.Client) -> None:
    for content_type in ("application/json; charset=utf-8", "text/plain", ""):
        headers = {"Content-Type": content_type} if content_type else {}
        answer = http.post("/tts", content=b'{"text": "Hello."}', headers=headers)
        assert answer.status_code == 200


def test_a_failure_after_the_first_sound_breaks_the_transfer(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"text": "This is well. Now raise it. And this is never heard.", "backend": "chaos"}
    with http.stream("POST", "/tts", json=body) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    wait_until(lambda: "speech broke off" in caplog.text)
    assert "synthesis_failed" in caplog.text


def test_a_client_that_goes_away_frees_its_slot(server: Server, http: httpx.Client) -> None:
    pool = server.service.pools["babble"]
    body = {"text": LONG, "backend": "babble", "opts": {"speed": 0.25}}
    with http.stream("POST", "/tts", json=body) as answer:
        sound = answer.iter_raw()
        assert next(sound)
        assert pool.free_slots < pool.slots
    wait_until(lambda: pool.free_slots == pool.slots)
    wait_until(lambda: not server.turns)


def test_a_client_that_goes_away_before_the_first_sound_frees_its_slot(
    server: Server, http: httpx.Client
) -> None:
    pool = server.service.pools["chaos"]
    body = json.dumps({"text": "hang", "backend": "chaos"}).encode()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        raw.sendall(
            b"POST /tts HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        wait_until(lambda: server.turns == 1)
    wait_until(lambda: not server.turns)
    # The worker that hangs is replaced; the next one speaks.
    wait_until(lambda: pool.is_ready and pool.free_slots == pool.slots)
    assert http.post("/tts", json={"text": "Hello.", "backend": "chaos"}).status_code == 200


def test_a_text_has_a_limit(tmp_path: Path) -> None:
    with running(tmp_path, "tone", limits={"max_turn_chars": 1_000}) as server:
        for text in ("word " * 300, "word " * 100_000):
            answer = httpx.post(f"{server.url}/tts", json={"text": text}, timeout=60)
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"


# -- WS /stream ----------------------------------------------------------------------------------


def test_a_text_in_the_query_is_spoken(server: Server, http: httpx.Client) -> None:
    with talk(f"{server.ws}/stream?text=Hello+world.&voice=high&seed=1") as listener:
        assert listener.until_closed() == 1000
        assert listener.kinds == {"audio", "done"}
        assert listener.messages[-1]["type"] == "done"
        assert listener.sound == pcm_of(http, text="Hello world.", voice="high", seed=1)


def test_a_stream_has_a_format(server: Server, http: httpx.Client) -> None:
    with talk(f"{server.ws}/stream?text=Hello+world.&format=mulaw") as listener:
        listener.until_closed()
        assert listener.sound == pcm_of(http, text="Hello world.", format="mulaw")


def test_a_listener_may_interrupt_a_stream(server: Server, http: httpx.Client) -> None:
    text = LONG[:2_000].replace(" ", "+")
    with talk(f"{server.ws}/stream?text={text}&opts=%7B%22speed%22%3A0.25%7D") as listener:
        while listener.received < 24_000:
            listener.until("audio")
        listener.send(cancel=True, played_ms=210)
        assert listener.until("cancelled")["text_spoken"] == "Sentence"
        assert listener.until_closed() == 1000


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "invalid_request"),
        ("text=", "invalid_request"),
        ("text=+", "no_text"),
        ("text=a&voice=nobody", "unknown_voice"),
        ("text=a&format=ogg", "unsupported_format"),
        ("text=a&sample_rate=many", "invalid_request"),
        ("text=a&opts=%5B1%5D", "bad_request"),
        ("text=a&voise=low", "invalid_request"),
    ],
)
def test_a_query_that_is_wrong_is_told_so(
    server: Server, http: httpx.Client, query: str, code: str
) -> None:
    with talk(f"{server.ws}/stream?{query}") as listener:
        assert listener.until_closed() == 1008
        assert listener.of("error")[0]["code"] == code


def test_a_real_engine_is_heard(http: httpx.Client) -> None:
    samples = np.frombuffer(pcm_of(http, backend="espeak"), np.int16)
    assert np.abs(samples).max() > 3_000
    assert len(samples) > 24_000
