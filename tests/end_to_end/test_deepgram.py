"""Deepgram's door by raw messages: both sockets, requests, and everything that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.conftest import PATIENCE, Server, running, wait_until
from voice_server.core.errors import ProtocolMistake
from voice_server.core.wire import Configure
from voice_server.web.vendors.deepgram_speak import SpeakTranslation

RATE = 24_000
WORD = 0.05  # seconds for each word, as tone is set up to speak


class Socket:
    """A socket of Deepgram's; ``sound`` is all that came of it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.sound = b""
        self.messages: list[dict[str, Any]] = []

    def say(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def until(self, kind: str) -> dict[str, Any]:
        """The next message of this kind, or b"" for sound, which is kept."""
        while True:
            message = self.connection.recv(PATIENCE)
            if isinstance(message, bytes):
                self.sound += message
                if kind == "sound":
                    return {}
                continue
            told: dict[str, Any] = json.loads(message)
            self.messages.append(told)
            if told["type"] == kind:
                return told

    def closed(self) -> int:
        """The close code, when everything has come."""
        try:
            while True:
                message = self.connection.recv(PATIENCE)
                if isinstance(message, bytes):
                    self.sound += message
                else:
                    self.messages.append(json.loads(message))
        except ConnectionClosed:
            code = self.connection.protocol.close_code
            assert code is not None
            return code

    @property
    def seconds(self) -> float:
        return len(self.sound) / 2 / RATE

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]


def opened(server: Server, version: int, query: str = "model=tone", **options: Any) -> Any:
    return connect(
        f"{server.ws}/v{version}/speak?{query}", compression=None, open_timeout=PATIENCE, **options
    )


# -- v1 ------------------------------------------------------------------------------------------


@contextmanager
def speaking(server: Server) -> Iterator[Socket]:
    """A socket that has minutes to say, and asked for all of it."""
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 400)
        socket.say("Flush")
        yield socket


def test_a_flush_is_answered_behind_its_sound(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        greeting = socket.until("Metadata")
        assert greeting["model_name"] == "tone"
        assert {"request_id", "model_version", "model_uuid"} <= greeting.keys()
        for number, count in enumerate((4, 2)):
            before = socket.seconds
            for word in range(count):
                socket.say("Speak", text=f"word{word} ")
            socket.say("Flush")
            assert socket.until("Flushed")["sequence_id"] == number
            assert socket.seconds - before == pytest.approx(count * WORD, rel=0.02)


def test_a_close_waits_for_what_was_said(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three.")
        socket.say("Close")
        assert socket.closed() == 1000
    assert socket.seconds == pytest.approx(3 * WORD, rel=0.02)


def test_a_close_of_nothing_closes(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Close")
        assert socket.closed() == 1000
        assert socket.kinds == ["Metadata"]


def test_clear_stops_the_sound_and_the_next_text_is_heard(server: Server) -> None:
    with speaking(server) as socket:
        socket.until("sound")
        socket.say("Clear")
        socket.until("Cleared")
        assert socket.seconds < 400 * 5 * WORD
        socket.sound = b""
        socket.say("Speak", text="One two.")
        socket.say("Flush")
        socket.until("Flushed")
        assert socket.seconds == pytest.approx(2 * WORD, rel=0.02)
    server.wait_quiet()


def test_a_clear_and_a_close_at_once_close(server: Server) -> None:
    with speaking(server) as socket:
        for kind in ("Clear", "Close", "Close"):
            socket.say(kind)
        assert socket.closed() == 1000
    server.wait_quiet()


def test_every_clear_is_answered_also_two_at_once_and_before_a_close(server: Server) -> None:
    with speaking(server) as socket:
        socket.until("sound")
        socket.say("Clear")
        socket.say("Speak", text="One two.")
        for kind in ("Clear", "Clear", "Close"):
            socket.say(kind)
        assert socket.closed() == 1000
        assert socket.kinds == ["Metadata", "Cleared", "Cleared", "Cleared"]
    server.wait_quiet()


def test_a_clear_of_nothing_is_answered_before_the_close(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Clear")
        socket.say("Close")
        assert socket.closed() == 1000
        assert socket.kinds == ["Metadata", "Cleared"]


def test_a_second_flush_is_answered_behind_the_sound_of_the_first(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 20)
        socket.say("Flush")
        socket.say("Flush")
        socket.until("Flushed")
        assert socket.seconds == pytest.approx(100 * WORD, rel=0.02)
        socket.until("Flushed")
        assert socket.kinds == ["Metadata", "Flushed", "Warning", "Flushed"]


def test_turns_that_end_between_a_clear_and_its_answer_are_counted_once() -> None:
    talk = SpeakTranslation(Configure(), "tone", "1", None)

    def told(kind: str) -> list[str]:
        return [json.loads(said)["type"] for said in talk.outgoing({"type": kind})]

    for kind in ("Speak", "Flush", "Clear", "Speak", "Flush", "Clear", "Close"):
        talk.incoming(json.dumps({"type": kind, "text": "One."}))
    assert told("cancelled") == ["Cleared"]
    assert told("done") == ["Flushed"]  # of the second turn, before its own cancel was heard
    assert not talk.is_over
    assert told("cancelled") == ["Cleared"]
    assert talk.is_over


def test_a_flush_of_nothing_is_answered(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Flush")
        socket.until("Flushed")
        [warning] = [message for message in socket.messages if message["type"] == "Warning"]
        assert warning["warn_msg"] == "there is no text to flush"
        socket.say("Speak", text="One.")
        socket.say("Flush")
        socket.until("Flushed")
    assert socket.seconds == pytest.approx(WORD, rel=0.02)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_telephones_get_their_law(server: Server, law: str) -> None:
    with opened(server, 1, f"model=tone&encoding={law}") as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four.")
        socket.say("Flush")
        socket.until("Flushed")
    assert len(socket.sound) / 8_000 == pytest.approx(4 * WORD, rel=0.02)


def test_a_client_that_leaves_frees_its_slot(server: Server) -> None:
    with opened(server, 1) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 400)
        socket.until("sound")
    wait_until(lambda: not (server.turns or server.busy_slots))
    server.wait_quiet()


# -- v2 ------------------------------------------------------------------------------------------


def test_a_turn_of_flux_has_its_events_in_order(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        for text in ("One two ", "three."):
            socket.say("Speak", text=text)
        socket.say("Flush")
        figures = socket.until("SpeechMetadata")
        socket.say("Close")
        assert socket.closed() == 1000
    assert socket.kinds == [
        "Connected", "SpeechStarted", "Flushed", "SpeechMetadata", "SessionMetadata",
    ]  # fmt: skip
    ids = {m["speech_id"] for m in socket.messages[1:4]}
    assert len(ids) == 1
    assert re.fullmatch(r"dg_sp_[0-9a-f]{12}", ids.pop())
    assert figures["audio_duration_ms"] == pytest.approx(3 * WORD * 1000, rel=0.02)
    assert figures["input_character_count"] == len("One two three.")
    assert socket.messages[-1]["total_audio_duration_ms"] == figures["audio_duration_ms"]


def test_flux_turns_wait_for_each_other(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        for text in ("One.", "One two.", "One two three."):
            socket.say("Speak", text=text)
            socket.say("Flush")
        lengths = [socket.until("SpeechMetadata")["audio_duration_ms"] for _ in range(3)]
    assert lengths == pytest.approx([50, 100, 150], rel=0.02)
    spoken = [m["speech_id"] for m in socket.messages if m["type"] == "SpeechStarted"]
    ended = [m["speech_id"] for m in socket.messages if m["type"] == "SpeechMetadata"]
    assert spoken == ended
    assert len(set(spoken)) == 3


def test_an_interrupt_is_answered_with_what_was_heard(server: Server) -> None:
    words = [f"word{number}" for number in range(200)]
    text = " ".join(words) + "."
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text=text)
        socket.until("sound")
        while socket.seconds < 10 * WORD:
            socket.until("sound")
        socket.say("Interrupt", playback_offset={"type": "time_ms", "value": 305})
        told = socket.until("SpeechInterrupted")
        assert told["audio_played_ms"] == 305
        assert told["text_spoken"] == " ".join(words[:6])
        assert told["text_spoken"] + told["text_remaining"] == text
        # The session now ends where the listener was: the next offset counts from there.
        socket.sound = b""
        socket.say("Speak", text="One two three four. " * 30)
        while socket.seconds < 10 * WORD:
            socket.until("sound")
        socket.say("Interrupt", playback_offset={"type": "time_ms", "value": 305 + 202})
        told = socket.until("SpeechInterrupted")
        assert told["text_spoken"] == "One two three four."
    server.wait_quiet()


def test_an_interrupt_is_answered_before_the_close(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 20)
        socket.say("Flush")
        socket.until("SpeechMetadata")
        socket.say("Interrupt", playback_offset={"type": "time_ms", "value": 100})
        socket.say("Close")
        assert socket.closed() == 1000
        # It was sent whole, and may have been heard whole, if that took long enough.
        answers = {"SpeechInterrupted", "Warning"}
        assert [kind for kind in socket.kinds if kind in answers]
        assert socket.kinds[-1] == "SessionMetadata"


def test_an_interrupt_without_an_offset_asks_the_servers_clock(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 100)
        socket.until("sound")
        socket.say("Interrupt")
        told = socket.until("SpeechInterrupted")
        assert told["text_spoken"] + told["text_remaining"] == "One two three four five. " * 100
        assert told["audio_played_ms"] <= socket.seconds * 1000 + 1
    server.wait_quiet()


def test_a_turn_that_begins_before_the_interrupt_is_answered_is_spoken(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 100)
        socket.until("sound")
        socket.say("Interrupt")
        socket.say("Speak", text="Next.")
        socket.say("Flush")
        socket.until("SpeechInterrupted")
        started = socket.until("SpeechStarted")
        figures = socket.until("SpeechMetadata")
    assert figures["speech_id"] == started["speech_id"]
    assert figures["audio_duration_ms"] == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "Flush"}, "NO_ACTIVE_SPEECH"),
        ({"type": "Interrupt"}, "NO_AUDIO_GENERATED"),
    ],
    ids=["flush", "interrupt"],
)
def test_what_flux_ignores_it_warns_of(server: Server, message: dict[str, Any], code: str) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say(**{"kind": message["type"]})
        assert socket.until("Warning")["code"] == code


def test_an_offset_that_does_not_advance_is_ignored(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text="One two three four five. " * 100)
        socket.until("sound")
        socket.say("Interrupt", playback_offset={"type": "time_ms", "value": 0})
        assert socket.until("Warning")["code"] == "INVALID_INTERRUPT_OFFSET"
    server.wait_quiet()


def test_a_turn_without_sound_has_figures_and_a_warning(server: Server) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Speak", text=" \n ")
        socket.say("Flush")
        assert socket.until("SpeechMetadata")["audio_duration_ms"] == 0
        assert "NO_SYNTHESIZABLE_TEXT" in [m.get("code") for m in socket.messages]


def test_flux_changes_its_speed_between_turns(server: Server) -> None:
    with opened(server, 2, "model=en-us") as connection:
        socket = Socket(connection)
        lengths = []
        for speed in (None, 1.5):
            if speed:
                socket.say("Configure", speed=speed)
                assert socket.until("ConfigureSuccess")["applied"] == {"speed": speed}
            socket.say("Speak", text="The same sentence, twice as it were.")
            socket.say("Flush")
            lengths.append(socket.until("SpeechMetadata")["audio_duration_ms"])
        socket.say("Configure", speed=9)
        assert socket.until("ConfigureFailure")["code"] == "SPEED_OUT_OF_RANGE"
        socket.say("Configure", speed="fast")
        assert socket.until("ConfigureFailure")["code"] == "SPEED_OUT_OF_RANGE"
    assert lengths[1] < 0.8 * lengths[0]


# -- requests ------------------------------------------------------------------------------------


def asked(http: httpx.Client, query: str = "model=tone", text: str = "One two.") -> httpx.Response:
    return http.post(f"/v1/speak?{query}", json={"text": text})


@pytest.mark.parametrize("version", [1, 2])
def test_a_request_is_answered_with_a_file(http: httpx.Client, version: int) -> None:
    query = "model=tone&encoding=linear16&container=none&sample_rate=16000"
    answer = http.post(f"/v{version}/speak?{query}", json={"text": "One two."})
    assert answer.status_code == 200
    assert len(answer.content) / 2 / 16_000 == pytest.approx(2 * WORD, rel=0.02)
    assert answer.headers["dg-request-id"]
    assert answer.headers["dg-model-name"] == "tone"
    assert UUID(answer.headers["dg-model-uuid"])
    assert answer.headers["dg-char-count"] == "8"


def test_the_headers_take_a_model_of_any_script(http: httpx.Client) -> None:
    answer = asked(http, "model=aura-声-ja")
    assert answer.status_code == 200
    assert unquote(answer.headers["dg-model-name"]) == "aura-声-ja"


@pytest.mark.parametrize(
    ("query", "content_type", "magic"),
    [
        ("model=tone", "audio/mpeg", b"\xff"),
        ("model=tone&encoding=linear16", "audio/wav", b"RIFF"),
        ("model=tone&encoding=mulaw", "audio/wav", b"RIFF"),
        ("model=tone&encoding=opus", "audio/ogg", b"OggS"),
        ("model=tone&encoding=flac", "audio/flac", b"fLaC"),
        ("model=tone&encoding=aac&bit_rate=48000", "audio/aac", b"\xff"),
    ],
)
def test_every_encoding_has_its_content_type(
    http: httpx.Client, query: str, content_type: str, magic: bytes
) -> None:
    answer = asked(http, query)
    assert answer.headers["content-type"] == content_type
    assert answer.content.startswith(magic)


def test_a_model_of_deepgram_is_the_default_voice(http: httpx.Client) -> None:
    query = "encoding=linear16&container=none"
    assert asked(http, f"model=aura-2-thalia-en&{query}").content == asked(http, query).content


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "text", "code"),
    [
        ("model=nobody", "One.", "UNKNOWN_VOICE"),
        ("model=tone&encoding=mp4", "One.", "UNSUPPORTED_FORMAT"),
        ("model=tone&encoding=linear16&sample_rate=1", "One.", "UNSUPPORTED_FORMAT"),
        ("model=tone&encoding=linear16&sample_rate=fast", "One.", "INVALID_REQUEST"),
        ("model=tone&container=zip", "One.", "INVALID_REQUEST"),
        ("model=tone&callback=http://127.0.0.1/", "One.", "BAD_REQUEST"),
        ("model=tone&speed=9", "One.", "INVALID_REQUEST"),
        ("model=tone", "", "NO_TEXT"),
        ("model=tone", " \n", "NO_TEXT"),
    ],
)
def test_a_wrong_request_is_refused_as_deepgram_does(
    http: httpx.Client, query: str, text: str, code: str
) -> None:
    answer = asked(http, query, text)
    assert answer.status_code == 400
    assert answer.json()["err_code"] == code
    assert answer.json()["err_msg"]
    assert answer.json()["request_id"] == answer.headers["dg-request-id"]


def test_junk_in_a_request_is_refused(http: httpx.Client) -> None:
    for body in (b"", b"\xff", b"[]", b'{"text": 5}', b"{"):
        answer = http.post("/v1/speak?model=tone", content=body)
        assert answer.status_code == 400
        assert answer.json()["err_code"] in ("INVALID_JSON", "INVALID_REQUEST")


def test_a_text_of_100_000_characters_is_spoken(server: Server, http: httpx.Client) -> None:
    url = "/v1/speak?model=tone&encoding=linear16&container=none"
    with http.stream("POST", url, json={"text": "word " * 20_000}) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_bytes())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "query", ["model=nobody", "model=tone&encoding=mp3", "model=tone&sample_rate=5"]
)
def test_a_wrong_socket_is_refused_in_its_handshake(
    server: Server, version: int, query: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(server, version, query)
    assert refused.value.response.status_code == 400
    assert b"err_code" in (refused.value.response.body or b"")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("junk", "code", "closed"),
    [
        ("junk", "MESSAGE-0000", 1008),
        ("[]", "MESSAGE-0000", 1008),
        ("{}", "MESSAGE-0000", 1008),
        ('{"type": "Sing"}', "MESSAGE-0000", 1008),
        ('{"type": "Speak"}', "MESSAGE-0000", 1008),
        ('{"type": "Speak", "text": 5}', "MESSAGE-0000", 1008),
        (b"\x00\xff", "BINARY_MESSAGE", 1008),
        ('{"type": "Speak", "text": "' + "word " * 20_000 + '"}', "TOO_LARGE", 1009),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_junk_is_an_error_and_the_end(
    server: Server, version: int, junk: str | bytes, code: str, closed: int
) -> None:
    with opened(server, version) as connection:
        socket = Socket(connection)
        connection.send(junk)
        assert socket.closed() == closed
    assert socket.messages[-1]["type"] == "Error"
    assert socket.messages[-1]["code"] == socket.messages[-1]["err_code"] == code
    server.wait_quiet()


@pytest.mark.parametrize(
    "offset", [5, {"value": "a"}, {"value": -1}, {"type": "words", "value": 5}, {"value": True}]
)
def test_an_offset_that_is_none_is_an_error(server: Server, offset: Any) -> None:
    with opened(server, 2) as connection:
        socket = Socket(connection)
        socket.say("Interrupt", playback_offset=offset)
        assert socket.closed() == 1008
    assert socket.messages[-1]["code"] == "MESSAGE-0000"


def test_text_behind_a_close_is_an_error() -> None:
    # Without a socket: there the sound, and with it all, may be over a moment earlier.
    translation = SpeakTranslation(Configure(framing="msgpack"), "tone", "number", None)
    for message in ({"type": "Speak", "text": "One."}, {"type": "Close"}, {"type": "Close"}):
        translation.incoming(json.dumps(message))
    with pytest.raises(ProtocolMistake):
        translation.incoming(json.dumps({"type": "Speak", "text": "More."}))


def test_a_wrong_key_is_refused_and_the_right_one_taken(tmp_path: Path) -> None:
    with running(tmp_path, "tone", api_key="secret") as server:
        server.wait_ready()
        for header in ("Token wrong", "Bearer wrong", ""):
            with pytest.raises(InvalidStatus) as refused:
                opened(server, 1, additional_headers={"Authorization": header})
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body or b"")["err_code"] == "INVALID_AUTH"
        for scheme in ("Token", "Bearer"):
            with opened(server, 1, additional_headers={"Authorization": f"{scheme} secret"}):
                pass
        with opened(server, 1, subprotocols=["token", "secret"]) as connection:
            assert connection.subprotocol == "token"
