"""jambonz and Vapi as they ask, at the real server; mu-law at 8 kHz."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from contextlib import contextmanager

import av
import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.conftest import PATIENCE, Server

TEXT = "Hello there, my friend."
LONG = "This sentence is said again and again. " * 200


def samples(http: httpx.Client, text: str = TEXT) -> int:
    """The samples at 24 kHz that the text has at the server's own door."""
    answer = http.post("/tts", json={"text": text, "backend": "espeak", "format": "pcm"})
    return len(answer.content) // 2


@contextmanager
def call(server: Server, query: str = "") -> Iterator[ClientConnection]:
    address = f"{server.ws}/telephony/jambonz?model=espeak&voice=en-us{query}"
    # A phone reads while it hangs up: one that stops reading has ten seconds until it is cut off.
    with connect(address, open_timeout=PATIENCE, max_queue=None) as socket:
        yield socket


def say(socket: ClientConnection, kind: str, text: str | None = None) -> None:
    said = {"type": kind} if text is None else {"type": kind, "text": text}
    socket.send(json.dumps(said))


def hear(socket: ClientConnection, count: int) -> bytes:
    """So many bytes of sound."""
    heard = b""
    while len(heard) < count:
        part = socket.recv(PATIENCE)
        assert isinstance(part, bytes), part
        heard += part
    return heard


@pytest.mark.parametrize(("encoding", "width"), [("pcm", 2), ("ulaw", 1), ("alaw", 1)])
def test_jambonz_streams_text_in_and_gets_samples_at_eight_kilohertz(
    server: Server, http: httpx.Client, encoding: str, width: int
) -> None:
    wanted = round(samples(http) / 3) * width
    with call(server, f"&encoding={encoding}") as socket:
        connected = json.loads(socket.recv(PATIENCE))
        assert connected == {
            "type": "connect",
            "data": {"sample_rate": 8000, "base64_encoding": False},
        }
        for _ in range(2):  # the next turn of the call sounds like the first
            say(socket, "keepalive")
            for word in TEXT.split(" "):
                say(socket, "stream", f"{word} ")
            say(socket, "flush")
            assert len(hear(socket, wanted)) == wanted


def test_a_caller_who_interrupts_is_spoken_to_again(server: Server, http: httpx.Client) -> None:
    with call(server) as socket:
        socket.recv(PATIENCE)
        say(socket, "stream", LONG)
        assert hear(socket, 1)
        say(socket, "stop")
        say(socket, "stream", TEXT)
        say(socket, "flush")
        # What was on its way comes first; had nothing been stopped it were minutes.
        wanted = samples(http) // 3 * 2
        limit = wanted + 8_000 * 2 * 60
        heard = 0
        while heard < limit:
            try:
                heard += len(socket.recv(2.0))
            except TimeoutError:
                if heard >= wanted:
                    break
        assert heard < limit


def test_a_call_that_ends_frees_its_turn(server: Server, http: httpx.Client) -> None:
    with call(server) as socket:
        socket.recv(PATIENCE)
        say(socket, "stream", LONG)
        assert hear(socket, 1)
    server.wait_quiet()


@pytest.mark.parametrize("junk", ["junk", "[]", '{"type": "sing"}', '{"text": "x"}', b"\0"])
def test_junk_is_answered_and_closed_with_1008(server: Server, junk: str | bytes) -> None:
    with call(server) as socket:
        socket.recv(PATIENCE)
        socket.send(junk)
        assert json.loads(socket.recv(PATIENCE))["type"] == "error"
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


@pytest.mark.parametrize("query", ["&sample_rate=7", "&encoding=gsm", "&language=??"])
def test_a_query_that_makes_no_sense_is_refused_in_place_of_the_handshake(
    server: Server, query: str
) -> None:
    with pytest.raises(InvalidStatus) as caught, call(server, query):
        pass
    assert caught.value.response.status_code == 422


def test_a_call_in_a_voice_that_nobody_knows_is_told(server: Server) -> None:
    address = f"{server.ws}/telephony/jambonz?voice=nobody"
    with connect(address, open_timeout=PATIENCE) as socket:
        socket.recv(PATIENCE)
        say(socket, "stream", "Hello")
        assert "nobody" in json.loads(socket.recv(PATIENCE))["error"]


def test_jambonz_posts_a_text_and_gets_an_mp3_or_a_wav(http: httpx.Client) -> None:
    body = {"text": TEXT, "voice": "en-us", "language": "en-US", "type": "text"}
    answer = http.post("/telephony/jambonz?model=espeak", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    with av.open(io.BytesIO(answer.content)) as sound:
        found = sum(frame.samples for frame in sound.decode(audio=0))
    assert abs(found - samples(http)) < 0.02 * samples(http) + 2_400
    query = "model=espeak&encoding=pcm&sample_rate=8000"
    answer = http.post(f"/telephony/jambonz?{query}", json=body)
    assert answer.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as reader:
        assert (reader.getframerate(), reader.getnchannels()) == (8_000, 1)
    assert (len(answer.content) - 44) // 2 == round(samples(http) / 3)


def test_jambonz_posts_ssml(http: httpx.Client) -> None:
    body = {"text": "<speak>Hello <break time='2s'/> there.</speak>", "type": "ssml"}
    paused = http.post("/telephony/jambonz?model=espeak&encoding=pcm", json=body)
    plain = http.post("/telephony/jambonz?model=espeak&encoding=pcm", json={"text": "Hello there."})
    assert paused.status_code == 200
    assert len(paused.content) > len(plain.content) + 48_000
    refused = http.post("/telephony/jambonz?model=tone", json=body)
    assert refused.status_code == 400
    assert "ssml" in refused.json()["error"]


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_vapi_asks_for_bare_samples_at_its_rate(http: httpx.Client, rate: int) -> None:
    message = {"type": "voice-request", "text": TEXT, "sampleRate": rate, "call": {"id": "1"}}
    answer = http.post("/telephony/vapi?model=espeak&voice=en-us", json={"message": message})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/raw")
    assert len(answer.content) // 2 == round(samples(http) * rate / 24_000)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"type": "status-update"}, 422),
        ({"type": "voice-request", "text": ""}, 400),
        ({"type": "voice-request", "text": "x", "sampleRate": 1}, 422),
    ],
)
def test_what_vapi_asks_wrongly_is_told(
    http: httpx.Client, message: dict[str, object], status: int
) -> None:
    answer = http.post("/telephony/vapi", json={"message": message})
    assert answer.status_code == status
    assert answer.json()["error"]
    assert answer.headers["x-request-id"].startswith("req_")
