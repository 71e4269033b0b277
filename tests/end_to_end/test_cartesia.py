"""Cartesia's door by raw messages: its socket, requests, voices, and everything that is wrong."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.conftest import PATIENCE, Server, running, wait_until
from voice_server.web.vendors.cartesia_socket import CartesiaTranslation

RATE = 24_000
WORD = 0.05  # seconds for each word, as tone is set up to speak
FORMAT = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": RATE}
HEADERS = {"Cartesia-Version": "2025-04-16"}
VERSION = "cartesia_version=2025-04-16"


class Socket:
    """A socket of Cartesia's; ``sound`` and ``told`` by context."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.sound: dict[str, bytes] = defaultdict(bytes)
        self.told: list[dict[str, Any]] = []

    def say(self, context: str, transcript: str = "", **fields: Any) -> None:
        asked = {
            "context_id": context,
            "model_id": "sonic-3",
            "transcript": transcript,
            "voice": {"mode": "id", "id": "high"},
            "output_format": FORMAT,
            **fields,
        }
        self.connection.send(json.dumps(asked))

    def cancel(self, context: str) -> None:
        self.connection.send(json.dumps({"context_id": context, "cancel": True}))

    def until(self, kind: str, context: str | None = None) -> dict[str, Any]:
        while True:
            message = self.take()
            if message["type"] == kind and context in (None, message["context_id"]):
                return message

    def take(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.connection.recv(PATIENCE))
        self.told.append(message)
        if message["type"] == "chunk":
            self.sound[message["context_id"]] += base64.b64decode(message["data"])
        return message

    def closed(self) -> int:
        try:
            while True:
                self.take()
        except ConnectionClosed:
            code = self.connection.protocol.close_code
            assert code is not None
            return code

    def seconds(self, context: str) -> float:
        return len(self.sound[context]) / 2 / RATE


def opened(server: Server, version: str = VERSION, **options: Any) -> Any:
    return connect(
        f"{server.ws}/tts/websocket?{version}", compression=None, open_timeout=PATIENCE, **options
    )


@pytest.fixture
def socket(server: Server) -> Iterator[Socket]:
    with opened(server) as connection:
        yield Socket(connection)
    server.wait_quiet()


# -- the socket ----------------------------------------------------------------------------------


def test_a_context_is_spoken_while_it_is_written(socket: Socket) -> None:
    for text in ("On", "e two. ", "Three four."):
        socket.say("a", text, **{"continue": True})
    early = socket.until("chunk", "a")
    assert (early["done"], early["status_code"]) == (False, 206)
    assert early["step_time"] >= 0
    socket.say("a", "", **{"continue": False})
    done = socket.until("done", "a")
    assert (done["done"], done["status_code"]) == (True, 200)
    assert socket.seconds("a") == pytest.approx(4 * WORD, rel=0.02)


def test_without_continue_one_message_is_all(socket: Socket) -> None:
    socket.say("a", "One two.")
    socket.until("done", "a")
    assert socket.seconds("a") == pytest.approx(2 * WORD, rel=0.02)


def test_contexts_speak_side_by_side_each_its_own_text(socket: Socket) -> None:
    for number in range(1, 6):
        socket.say(f"c{number}", "word " * number)
    for _ in range(5):
        socket.until("done")
    lengths = [socket.seconds(f"c{number}") for number in range(1, 6)]
    assert lengths == pytest.approx([n * WORD for n in range(1, 6)], rel=0.02)


def test_one_socket_serves_more_contexts_than_at_once_one_after_the_other(
    server: Server, socket: Socket
) -> None:
    slow = {"output_format": {**FORMAT, "sample_rate": 8_000}}
    socket.say("first", "One.", flush=True, **slow, **{"continue": True})
    socket.until("flush_done", "first")
    for number in range(2 * server.service.limits.max_contexts):
        socket.say(f"c{number}", "One two.")
        socket.until("done", f"c{number}")
    # It has been silent for so long that its place was given to others, and keeps its format.
    socket.say("first", "Two three.", **slow)
    socket.until("done", "first")
    assert len(socket.sound["first"]) / 2 / 8_000 == pytest.approx(3 * WORD, rel=0.02)


def test_word_times_increase_and_cover_the_text(socket: Socket) -> None:
    for text in ("One two three. ", "Four five. "):
        socket.say("a", text, add_timestamps=True, flush=True, **{"continue": True})
    socket.say("a", "Six.", add_timestamps=True)
    socket.until("done", "a")
    told = [m["word_timestamps"] for m in socket.told if m["type"] == "timestamps"]
    words = [word for part in told for word in part["words"]]
    times = [
        time
        for part in told
        for pair in zip(part["start"], part["end"], strict=True)
        for time in pair
    ]
    assert " ".join(words) == "One two three. Four five. Six."
    assert times == sorted(times)
    assert times[-1] == pytest.approx(6 * WORD, rel=0.02)


def test_a_flush_is_answered_behind_its_sound(socket: Socket) -> None:
    socket.say("a", "One two", flush=True, **{"continue": True})
    first = socket.until("flush_done", "a")
    assert (first["flush_id"], first["flush_done"], first["done"]) == (1, True, False)
    assert socket.seconds("a") == pytest.approx(2 * WORD, rel=0.02)
    socket.say("a", "", flush=True, **{"continue": True})
    assert socket.until("flush_done", "a")["flush_id"] == 2
    socket.say("a", "three", flush=True, **{"continue": True})
    socket.say("a", "", **{"continue": False})
    assert socket.until("flush_done", "a")["flush_id"] == 3
    socket.until("done", "a")
    assert socket.seconds("a") == pytest.approx(3 * WORD, rel=0.02)


def test_flushes_are_counted_from_0_for_clients_that_take_them_for_indices(server: Server) -> None:
    with opened(server, "cartesia_version=2024-11-13") as connection:
        socket = Socket(connection)
        for number in range(2):
            socket.say("a", "One.", flush=True, **{"continue": True})
            assert socket.until("chunk", "a")["flush_id"] == number
            assert socket.until("flush_done", "a")["flush_id"] == number
    server.wait_quiet()


def test_text_is_spoken_after_the_delay_that_is_asked_for(socket: Socket) -> None:
    socket.say("a", "no end of it", max_buffer_delay_ms=0, **{"continue": True})
    socket.until("chunk", "a")
    socket.say("a", "", **{"continue": False})
    socket.until("done", "a")
    assert socket.seconds("a") == pytest.approx(4 * WORD, rel=0.02)


def test_cancelling_a_context_stops_it_alone(socket: Socket) -> None:
    socket.say("a", "One two three four five. " * 400)
    socket.say("b", "One two three four five. " * 20)
    socket.until("chunk", "a")
    socket.cancel("a")
    socket.until("done", "a")
    assert socket.seconds("a") < 400 * 5 * WORD
    before = socket.sound["a"]
    socket.until("done", "b")
    assert socket.sound["a"] == before
    assert socket.seconds("b") == pytest.approx(100 * WORD, rel=0.02)


def test_a_context_that_is_over_can_be_cancelled_and_begun_again(socket: Socket) -> None:
    for _ in range(2):
        socket.say("a", "One.")
        socket.until("done", "a")
        socket.cancel("a")
    assert socket.seconds("a") == pytest.approx(2 * WORD, rel=0.02)


def test_a_context_that_is_cancelled_twice_ends_once(server: Server) -> None:
    talk = CartesiaTranslation(server.service, "1")
    begin = json.dumps({"context_id": "a", "transcript": "One.", "continue": True})
    cancel = json.dumps({"context_id": "a", "cancel": True})
    for _ in range(2):  # the end of the first one is none of the second
        assert talk.incoming(begin)[-1] == {"context": "a", "token": "One."}
        assert talk.incoming(cancel) == [{"context": "a", "cancel": True}]
        assert talk.incoming(cancel) == [{}]
        [done] = talk.outgoing({"type": "cancelled", "context": "a"})
        assert json.loads(str(done))["type"] == "done"


@pytest.mark.parametrize(
    ("encoding", "rate", "width"),
    [
        ("pcm_f32le", 44_100, 4),
        ("pcm_s16le", 22_050, 2),
        ("pcm_mulaw", 8_000, 1),
        ("pcm_alaw", 8_000, 1),
    ],
)
def test_every_encoding_has_its_length(
    socket: Socket, encoding: str, rate: int, width: int
) -> None:
    fmt = {"container": "raw", "encoding": encoding, "sample_rate": rate}
    socket.say("a", "One two three four.", output_format=fmt)
    socket.until("done", "a")
    assert len(socket.sound["a"]) / width / rate == pytest.approx(4 * WORD, rel=0.02)
    if encoding == "pcm_f32le":
        samples = np.frombuffer(socket.sound["a"], "<f4")
        assert 0.01 < np.abs(samples).max() <= 1


def test_a_client_that_leaves_frees_its_slots(server: Server) -> None:
    with opened(server) as connection:
        socket = Socket(connection)
        socket.say("a", "One two three four five. " * 400)
        socket.until("chunk")
    wait_until(lambda: not (server.turns or server.busy_slots))


# -- what is wrong with one context --------------------------------------------------------------


def refused(socket: Socket, context: str | None, code: str) -> dict[str, Any]:
    """The error of this context; the socket must go on speaking."""
    error = socket.until("error")
    assert error["context_id"] == context
    assert error["error_code"] == code
    assert error["status_code"] >= 400
    assert error["title"]
    assert error["message"] == error["error"]
    assert error["request_id"]
    socket.say("after", "One.")
    socket.until("done", "after")
    return error


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"voice": {"mode": "id", "id": "nobody"}}, "unknown_voice"),
        ({"model_id": "nothing"}, "unknown_backend"),
        ({"output_format": {"encoding": "mp4"}}, "unsupported_format"),
        ({"output_format": {**FORMAT, "sample_rate": 1}}, "unsupported_format"),
        ({"output_format": 5}, "invalid_request"),
        ({"voice": {"mode": "embedding", "embedding": [0.5]}}, "invalid_request"),
        ({"language": "not a tag"}, "invalid_request"),
        ({"max_buffer_delay_ms": -1}, "invalid_request"),
        ({"generation_config": {"speed": 99}}, "invalid_request"),
        ({"transcript": 5}, "invalid_request"),
        ({"transcript": ""}, "no_text"),
    ],
)
def test_a_wrong_generation_is_the_error_of_its_context(
    socket: Socket, fields: dict[str, Any], code: str
) -> None:
    socket.say("a", **{"transcript": "One.", **fields})
    refused(socket, "a", code)


@pytest.mark.parametrize("context", [None, "", 5, "x" * 300])
def test_a_context_needs_a_name(socket: Socket, context: Any) -> None:
    socket.say(context, "One.")
    refused(socket, context if isinstance(context, str) else None, "invalid_request")


@pytest.mark.parametrize(
    "end", [{"continue": False}, {"cancel": True}], ids=["closed", "cancelled"]
)
def test_a_context_that_has_ended_takes_no_more_text(server: Server, end: dict[str, Any]) -> None:
    # Without a socket: there its sound may have ended, and the name be free, a moment earlier.
    translation = CartesiaTranslation(server.service, "number")
    begun = {"context_id": "a", "transcript": "One.", "voice": "high", "continue": True}
    translation.incoming(json.dumps(begun))
    translation.incoming(json.dumps({"context_id": "a", **end}))
    assert not translation.replies
    for text in ("", "More."):
        translation.incoming(json.dumps({"context_id": "a", "transcript": text}))
        error = json.loads(translation.replies.pop())
        assert (error["context_id"], error["error_code"]) == ("a", "protocol_mistake")


@pytest.mark.parametrize("end", [{"continue": True, "flush": True}, {"continue": False}])
def test_a_context_is_flushed_and_ended_by_what_clients_before_3_say_then(
    socket: Socket, end: dict[str, Any]
) -> None:
    socket.say("a", "One two", **{"continue": True})
    another = {"mode": "embedding", "embedding": [0.5] * 192}
    loud = {"container": "raw", "encoding": "pcm_f32le", "sample_rate": 44_100}
    socket.say("a", voice=another, output_format=loud, model_id="sonic-english", **end)
    socket.until("flush_done" if "flush" in end else "done", "a")
    assert socket.seconds("a") == pytest.approx(2 * WORD, rel=0.02)
    socket.say("b", "One.", voice=another)
    refused(socket, "b", "invalid_request")


def test_more_contexts_than_allowed_are_refused_one_by_one(server: Server) -> None:
    # Without a socket: a slow machine is too busy for so many before there are too many.
    translation = CartesiaTranslation(server.service, "number")
    allowed = server.service.limits.max_contexts - 1
    begun = {"transcript": "One.", "voice": "high", "continue": True}
    for number in range(allowed):
        translation.incoming(json.dumps({"context_id": f"c{number}", **begun}))
    assert not translation.replies
    translation.incoming(json.dumps({"context_id": "more", **begun}))
    error = json.loads(translation.replies.pop())
    assert (error["context_id"], error["error_code"]) == ("more", "too_many_contexts")
    more = translation.incoming(json.dumps({"context_id": "c0", "transcript": " Two."}))
    assert more == [{"context": "c0", "token": " Two."}, {"context": "c0", "done": True}]
    assert not translation.replies


def test_the_error_of_a_segment_does_not_end_its_context(socket: Socket) -> None:
    socket.say("a", "raise. Then this.", model_id="chaos", voice="")
    error = socket.until("error", "a")
    assert error["done"] is False
    socket.until("done", "a")


# -- what is wrong with the socket ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("junk", "code", "closed"),
    [
        ("junk", "invalid_json", 1008),
        ("[]", "bad_message", 1008),
        (b"\x00\xff", "binary_message", 1008),
        ('{"context_id": "a", "transcript": "' + "word " * 20_000 + '"}', "too_large", 1009),
    ],
    ids=["text", "list", "binary", "large"],
)
def test_junk_is_an_error_and_the_end(
    server: Server, junk: str | bytes, code: str, closed: int
) -> None:
    with opened(server) as connection:
        socket = Socket(connection)
        connection.send(junk)
        assert socket.closed() == closed
    assert socket.told[-1]["type"] == "error"
    assert socket.told[-1]["error_code"] == code
    assert socket.told[-1]["status_code"] == (413 if code == "too_large" else 400)
    server.wait_quiet()


def test_a_wrong_key_is_refused_and_the_right_one_taken(tmp_path: Path) -> None:
    with running(tmp_path, "tone", api_key="secret") as server:
        server.wait_ready()
        with pytest.raises(InvalidStatus) as wrong:
            opened(server, additional_headers={"X-API-Key": "wrong"})
        assert wrong.value.response.status_code == 401
        assert "error_code" in json.loads(wrong.value.response.body or b"")
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            with opened(server, additional_headers=headers):
                pass


# -- requests ------------------------------------------------------------------------------------


def asked(http: httpx.Client, path: str = "/tts/bytes", **fields: Any) -> httpx.Response:
    body = {
        "model_id": "sonic-3",
        "transcript": "One two.",
        "voice": {"mode": "id", "id": "high"},
        "output_format": FORMAT,
        **fields,
    }
    return http.post(path, json=body, headers=HEADERS)


@pytest.mark.parametrize("voice", ["high", {"mode": "id", "id": "high"}])
def test_a_request_is_answered_with_its_sound(http: httpx.Client, voice: Any) -> None:
    answer = asked(http, voice=voice)
    assert answer.status_code == 200
    assert len(answer.content) / 2 / RATE == pytest.approx(2 * WORD, rel=0.02)
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("fmt", "content_type", "magic"),
    [
        (
            {"container": "wav", "encoding": "pcm_f32le", "sample_rate": 44_100},
            "audio/wav",
            b"RIFF",
        ),
        ({"container": "mp3", "sample_rate": 44_100, "bit_rate": 128_000}, "audio/mpeg", b"\xff"),
    ],
    ids=["wav", "mp3"],
)
def test_a_container_has_its_content_type(
    http: httpx.Client, fmt: dict[str, Any], content_type: str, magic: bytes
) -> None:
    answer = asked(http, output_format=fmt)
    assert answer.headers["content-type"] == content_type
    assert answer.content.startswith(magic)


def test_events_carry_sound_words_and_the_end(http: httpx.Client) -> None:
    answer = asked(http, "/tts/sse", add_timestamps=True, context_id="mine")
    assert answer.headers["content-type"] == "text/event-stream"
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    told = [json.loads(line.removeprefix("data: ")) for line in lines]
    sound = b"".join(base64.b64decode(m["data"]) for m in told if m["type"] == "chunk")
    assert len(sound) / 2 / RATE == pytest.approx(2 * WORD, rel=0.02)
    words = [w for m in told if m["type"] == "timestamps" for w in m["word_timestamps"]["words"]]
    assert " ".join(words) == "One two."
    assert told[-1] == {"type": "done", "status_code": 200, "done": True, "context_id": "mine"}


@pytest.mark.parametrize("path", ["/tts/bytes", "/tts/sse"])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"voice": "nobody"}, 404, "unknown_voice"),
        ({"model_id": "nothing"}, 404, "unknown_backend"),
        ({"output_format": {**FORMAT, "encoding": "mp4"}}, 400, "unsupported_format"),
        ({"output_format": {**FORMAT, "sample_rate": 1}}, 400, "unsupported_format"),
        ({"transcript": ""}, 400, "no_text"),
        ({"transcript": None}, 400, "invalid_request"),
    ],
)
def test_a_wrong_request_is_refused_as_cartesia_does(
    http: httpx.Client, path: str, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = asked(http, path, **fields)
    assert answer.status_code == status
    assert answer.json()["error_code"] == code
    assert {"title", "message", "request_id"} <= answer.json().keys()


def test_a_text_of_100_000_characters_is_spoken(http: httpx.Client) -> None:
    body = {"transcript": "word " * 20_000, "voice": "high", "output_format": FORMAT}
    with http.stream("POST", "/tts/bytes", json=body, headers=HEADERS) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_bytes())


# -- voices --------------------------------------------------------------------------------------


def listed(http: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = http.get("/voices", params=query, headers=HEADERS)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def test_pages_lead_to_every_voice_and_then_to_nothing(http: httpx.Client) -> None:
    everything = [voice["id"] for voice in listed(http, limit=100)["data"]]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while page := listed(http, **query)["data"]:
        found += [voice["id"] for voice in page]
        query["starting_after"] = found[-1]
    assert found[: len(everything)] == everything
    assert len(set(found)) == len(found) > 3
    back = listed(http, limit=2, ending_before=found[3])["data"]
    assert [voice["id"] for voice in back] == found[1:3]


def test_clients_of_the_first_version_are_told_all_voices_in_a_list(http: httpx.Client) -> None:
    told = http.get("/voices", headers={"Cartesia-Version": "2024-06-10"}).json()
    assert len(told) > 2
    assert told[:2] == listed(http, limit=2)["data"]
    assert {"id", "name", "description", "language", "is_public", "embedding"} <= told[0].keys()


def test_a_voice_is_found_by_its_id_and_by_a_search(http: httpx.Client) -> None:
    one = http.get("/voices/high", headers=HEADERS).json()
    assert one["id"] == "high"
    assert one in listed(http, q="HIGH", limit=100)["data"]
    assert http.get("/voices/nobody", headers=HEADERS).json()["error_code"] == "unknown_voice"
    assert http.get("/voices?starting_after=nobody", headers=HEADERS).status_code == 404


def test_the_list_of_others_is_not_touched(http: httpx.Client) -> None:
    assert "voices" in http.get("/voices").json()
    assert http.get("/", headers=HEADERS).json()["ok"] is True
