"""What a client of ``/stream-tokens`` can do wrong: a typed error, a close code, nothing left."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import BACKENDS, PATIENCE, Server, running, wait_until
from tests.end_to_end.talking import Talk, talk
from voice_server.web.socket import BoundedWebSocket

LONG = " ".join(f"Sentence number {n} of a long speech." for n in range(40))
HASTE = 2.0  # seconds; enough for a test that a busy machine holds up, while it does its part


@pytest.fixture
def path(server: Server, http: httpx.Client) -> str:
    return f"{server.ws}/stream-tokens"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with low limits."""
    limits = {
        "max_turn_chars": 1_000,
        "max_contexts": 2,
        "max_connections": 3,
        "messages_per_second": 1,
        "messages_burst": 50,
        "max_message_bytes": 2_000,
    }
    with running(tmp_path_factory.mktemp("strict"), "tone", "babble", limits=limits) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody long, and whose babble takes 0.3 s for a second of sound."""
    limits = {"idle_timeout": HASTE, "send_deadline": HASTE}
    slow = BACKENDS.replace("frame_ms: 40", "frame_ms: 40, step_ms: 12")
    folder = tmp_path_factory.mktemp("hasty")
    with running(folder, "tone", "babble", yaml=slow, limits=limits) as server:
        server.wait_ready()
        yield server


Sent = dict[str, Any] | str | bytes
TURN = {"token": "Hello world. "}
MISTAKES: dict[str, tuple[list[Sent], str, int]] = {
    "unknown voice": ([{"voice": "nobody"}], "unknown_voice", 1008),
    "unknown backend": ([{"backend": "nothing"}], "unknown_backend", 1008),
    "unknown option": ([{"opts": {"sped": 1}}], "unknown_option", 1008),
    "infinite option": ([{"opts": {"speed": float("inf")}}], "bad_option", 1008),
    "no instructions here": ([{"instructions": "warm"}], "unknown_option", 1008),
    "unknown format": ([{"format": {"encoding": "ogg"}}], "unsupported_format", 1008),
    "impossible rate": ([{"format": {"sample_rate": 7_999}}], "unsupported_format", 1008),
    "a rate opus has not": (
        [{"format": {"encoding": "opus", "sample_rate": 44_100}}],
        "unsupported_format",
        1008,
    ),
    "voice is a number": ([{"voice": 5}], "bad_message", 1008),
    "token is a number": ([{"token": 5}], "bad_message", 1008),
    "token is a list": ([{"token": ["a"]}], "bad_message", 1008),
    "done is text": ([{"done": "yes"}], "bad_message", 1008),
    "seed is true": ([{"seed": True}], "bad_message", 1008),
    "opts is a list": ([{"opts": [1]}], "bad_message", 1008),
    "no language": ([{"language": "!!"}], "bad_message", 1008),
    "negative delay": ([{"max_delay_ms": -1}], "bad_message", 1008),
    "unknown field": ([{"tokne": "a"}], "bad_message", 1008),
    "no JSON": (["hello"], "invalid_json", 1008),
    "half a JSON": (['{"token": "a'], "invalid_json", 1008),
    "JSON without end": (["[" * 60_000], "invalid_json", 1008),
    "a number without end": (["1" * 60_000], "invalid_json", 1008),
    "a list": (["[1]"], "bad_message", 1008),
    "nothing": ([""], "invalid_json", 1008),
    "binary": ([b"\x00\x01"], "binary_message", 1008),
    "too large": ([json.dumps({"token": "a" * 70_000})], "too_large", 1009),
    "done without tokens": ([{"done": True}], "no_text", 1008),
    "tokens after done": ([{**TURN, "done": True}, TURN], "protocol_mistake", 1008),
    "done after done": ([{**TURN, "done": True}, {"done": True}], "protocol_mistake", 1008),
    "two configurations": ([{"voice": "low"}, {"voice": "high"}], "protocol_mistake", 1008),
    "configuration after tokens": ([TURN, {"voice": "high"}], "protocol_mistake", 1008),
    "a context without its framing": ([{"context": "a", **TURN}], "protocol_mistake", 1008),
    "another framing": (
        [{"keep_open": True}, {"framing": "msgpack"}],
        "protocol_mistake",
        1008,
    ),
    "unknown framing": ([{"framing": "xml"}], "bad_message", 1008),
    "resume of nothing": ([{"resume": {"session": "x", "samples": 0}}], "resume_failed", 1008),
    "resume without a count": ([{"resume": {"session": "x"}}], "bad_message", 1008),
    "resume too late": (
        [TURN, {"resume": {"session": "x", "samples": 0}}],
        "protocol_mistake",
        1008,
    ),
}


def refused(agent: Talk, *sent: Sent) -> tuple[dict[str, Any], int]:
    """Send it all; the last error that came back, and the close code."""
    for message in sent:
        if isinstance(message, dict):
            agent.send(**message)
        else:
            agent.send(message)
    code = agent.until_closed()
    return agent.of("error")[-1], code


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_remedy_and_costs_nobody_else(path: str, name: str) -> None:
    sent, code, close_code = MISTAKES[name]
    with talk(path) as neighbour, talk(path) as agent:
        neighbour.tokens("I am speaking. ")
        error, closed = refused(agent, *sent)
        assert (error["code"], closed) == (code, close_code)
        assert error["retryable"] is False
        assert len(error["msg"]) > 20, "a message says what to do"
        assert "Traceback" not in error["msg"]
        neighbour.send(token="Still speaking.", done=True)
        assert neighbour.until_closed() == 1000
        assert neighbour.sentences == ["I am speaking.", "Still speaking."]


def test_a_backend_that_refuses_an_option_says_so_and_the_socket_ends_well(path: str) -> None:
    with talk(path) as agent:
        agent.send(opts={"speed": 99})
        agent.send(**TURN, done=True)
        assert agent.until_closed() == 1000
        [error] = agent.of("error")
        assert (error["code"], error["segment"]) == ("bad_option", 0)
        assert not agent.received


def test_a_socket_that_is_kept_open_survives_a_turn_without_text(path: str) -> None:
    with talk(path) as agent:
        agent.send(keep_open=True)
        agent.send(done=True)
        assert agent.until("error")["code"] == "no_text"
        agent.until("done")
        agent.send(**TURN, done=True)
        agent.until("done")
        assert agent.received


STRANGE = {
    "lone surrogates": '{"token": "One \\ud83d two. \\ude00 Three."}',
    "a pair cut in two": '{"token": "One \\ud83d"}\n{"token": "\\ude00 two."}',
    "NUL": '{"token": "One \\u0000 two\\u0000. Three."}',
    "right to left": json.dumps({"token": "שלום עולם. مرحبا بالعالم. \u202eabc\u202c."}),
    "combining marks": json.dumps({"token": "Z" + "\u0301" * 500 + " algo. e\u0301"}),
    "controls": json.dumps({"token": "One\x07\x1b[31m two\x7f. \ufeffThree\u200b."}),
    "emoji": json.dumps({"token": "👩‍👩‍👧‍👦 yes. 🇩🇪 no."}),
    "not characters": json.dumps({"token": "One \uffff\ufdd0 two."}),
}


@pytest.mark.parametrize("backend", ["tone", "espeak", "babble"])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_text_is_spoken_and_breaks_nothing(path: str, backend: str, name: str) -> None:
    with talk(path) as agent:
        agent.send(backend=backend, timestamps=True)
        for raw in STRANGE[name].split("\n"):
            agent.send(raw)
        agent.send(done=True)
        assert agent.until_closed() == 1000
        assert not agent.of("error")
        assert agent.received


def joined(tokens: list[str]) -> str:
    """As JSON has it: the halves of a pair, side by side, are the character."""
    raw = "".join(tokens).encode("utf-16-le", "surrogatepass")
    return raw.decode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("name", STRANGE)
def test_strange_text_comes_back_whole_when_it_is_cancelled(path: str, name: str) -> None:
    tokens = [json.loads(raw)["token"] for raw in STRANGE[name].split("\n")]
    with talk(path) as agent:
        for raw in STRANGE[name].split("\n"):
            agent.send(raw)
        agent.send(cancel=True, played_ms=60)
        cancelled = agent.until("cancelled")
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == joined(tokens)


def test_a_megabyte_without_punctuation_is_spoken_whole(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", keep_open=True)
        text = "".join(chr(ord("a") + n % 26) for n in range(1 << 20))
        for start in range(0, len(text), 60_000):
            agent.send(token=text[start : start + 60_000])
        agent.send(done=True)
        agent.until("done")
        assert "".join(agent.sentences) == text
        assert max(map(len, agent.sentences)) <= 300
        assert not agent.of("error")


# -- sockets that close --------------------------------------------------------------------------

PHASES: dict[str, list[dict[str, Any]]] = {
    "before anything": [],
    "after the configuration": [{"voice": "low", "timestamps": True}],
    "in the middle of a sentence": [{"token": "Half a sen"}],
    "while it is spoken": [{"token": LONG}],
    "after done": [{"token": LONG, "done": True}],
    "while a batching backend speaks": [{"backend": "babble", "token": LONG}],
    "in one of its contexts": [{"framing": "msgpack", "context": "a", "token": LONG}],
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("manner", ["goodbye", "drop"])
def test_a_socket_that_closes_leaves_nothing(
    server: Server, path: str, phase: str, manner: str
) -> None:
    with talk(path) as agent:
        for message in PHASES[phase]:
            agent.send(**message)
        if "token" in str(PHASES[phase]) and "Half" not in str(PHASES[phase]):
            agent.until("audio")
        if manner == "drop":
            agent.drop()
    if manner == "drop":
        # A session that can be resumed is kept for that; nobody comes, so its time is up.
        wait_until(lambda: server.service._sockets == 0)
        server.expire_sessions()
    server.wait_quiet()
    with talk(path) as next_one:
        next_one.send(**TURN, done=True)
        assert next_one.until_closed() == 1000


# -- limits --------------------------------------------------------------------------------------


def test_a_turn_has_an_end(strict: Server) -> None:
    with talk(f"{strict.ws}/stream-tokens") as agent:
        error, code = refused(agent, {"token": "a " * 400}, {"token": "a " * 400})
        assert (error["code"], code) == ("too_large", 1009)
    strict.wait_quiet()


def test_a_socket_has_so_many_contexts(strict: Server) -> None:
    with talk(f"{strict.ws}/stream-tokens") as agent:
        agent.send(framing="msgpack", context="a", token=LONG[:500])
        agent.send(context="b", token=LONG[:500])
        error, code = refused(agent, {"context": "c", "token": "One too many."})
        assert (error["code"], code) == ("too_many_contexts", 1008)
    strict.wait_quiet()


def test_more_sockets_than_allowed_are_asked_to_come_later(strict: Server) -> None:
    url = f"{strict.ws}/stream-tokens"
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(talk(url)).send(keep_open=True)
        wait_until(lambda: strict.service._sockets == 3)
        late = stack.enter_context(talk(url))
        assert late.until_closed() == 1013
        [error] = late.of("error")
        assert error["code"] == "too_many_connections"
        assert error["retryable"] is True
        assert error["retry_after_ms"] > 0
    strict.wait_quiet()


def test_a_flood_of_messages_is_ended(strict: Server) -> None:
    with talk(f"{strict.ws}/stream-tokens") as agent:
        for _ in range(60):
            with contextlib.suppress(Exception):  # it may be closed already
                agent.send(token="a")
        assert agent.until_closed() == 1008
        assert agent.of("error")[-1]["code"] == "rate_limited"
    strict.wait_quiet()


def test_a_silent_socket_is_closed(hasty: Server) -> None:
    with talk(f"{hasty.ws}/stream-tokens") as agent:
        agent.send(keep_open=True)
        assert agent.until_closed() == 1008
        assert agent.of("error")[-1]["code"] == "idle_timeout"
    hasty.wait_quiet()


@pytest.mark.parametrize("text", ["Hello world.", "Let me look. One moment!\n\n"])
@pytest.mark.parametrize("backend", ["tone", "babble"])
def test_a_client_that_never_ends_its_turn_is_closed_once_it_was_heard(
    hasty: Server, backend: str, text: str
) -> None:
    with talk(f"{hasty.ws}/stream-tokens") as agent:
        agent.send(backend=backend, max_delay_ms=10, token=text)
        assert agent.until_closed() == 1008
        assert agent.sound
        assert agent.of("error")[-1]["code"] == "idle_timeout"
    hasty.wait_quiet()


def test_a_client_that_is_silent_while_its_text_is_spoken_is_not_closed(hasty: Server) -> None:
    with talk(f"{hasty.ws}/stream-tokens") as agent:
        agent.send(backend="babble", opts={"speed": 0.25}, keep_open=True)
        began = time.monotonic()
        agent.send(token="Ten seconds of speech. " * 7, done=True)
        assert agent.until("done")["stats"]["audio_ms"] > 10_000
        assert time.monotonic() - began > HASTE, "it was not silent for long"
    hasty.wait_quiet()


def test_a_client_that_hears_what_was_sent_long_ago_is_not_closed(hasty: Server) -> None:
    with talk(f"{hasty.ws}/stream-tokens") as agent:
        agent.send(backend="tone", opts={"speed": 0.25}, keep_open=True)
        agent.send(token="word " * 300, done=True)
        assert agent.until("done")["stats"]["audio_ms"] >= 60_000
        time.sleep(HASTE + 1.0)  # the user listens, and then interrupts
        agent.send(cancel=True)
        assert agent.until("cancelled")["text_remaining"]
        # Nothing is heard now.
        assert agent.until_closed() == 1008
    hasty.wait_quiet()


def test_a_refused_option_is_told_once_however_much_text_follows(server: Server) -> None:
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(backend="babble", opts={"speed": 9}, keep_open=True)
        agent.send(token="Hello ")
        assert agent.until("error")["code"] == "bad_option"
        for token in ("there, ", "world. ", "And more. "):
            agent.send(token=token)
        agent.send(flush=True)
        agent.send(token="Still more.")
        agent.send(done=True)
        assert agent.until("done")["stats"]["audio_ms"] == 0
        assert len(agent.of("error")) == 1
        # The refusal was one of its turn. The next is asked anew.
        agent.send(token="Hello again.")
        agent.send(done=True)
        agent.until("done")
        assert [error["segment"] for error in agent.of("error")] == [0, 0]
    server.wait_quiet()


HANDSHAKE = (
    b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def frame(opcode: int, payload: bytes) -> bytes:
    """A masked frame, with a mask of zeros."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def test_a_socket_that_was_refused_closes_however_much_is_still_to_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BoundedWebSocket.__init__

    def patient(ours: BoundedWebSocket, *args: Any, **options: Any) -> None:
        made(ours, *args, **options)
        ours.close_timeout = 600.0  # what uvicorn gives a close that is not answered

    monkeypatch.setattr(BoundedWebSocket, "__init__", patient)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
        goodbye = frame(8, (1000).to_bytes(2, "big"))
        raw.sendall(b"GET /stream-tokens" + HANDSHAKE)
        assert raw.recv(65_536).startswith(b"HTTP/1.1 101")
        raw.sendall(frame(1, b"no JSON") * 200)
        wait_until(lambda: server.service._sockets == 0)
        # More than is read at once.
        raw.sendall(frame(1, b"x" * 120) * 8_000 + goodbye)
        while raw.recv(65_536):
            pass
    server.wait_quiet()


def test_a_client_that_does_not_read_is_cut_off(hasty: Server) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), PATIENCE) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        raw.sendall(
            b"GET /stream?text=" + b"word+" * 200 + b"&opts=%7B%22speed%22%3A0.25%7D" + HANDSHAKE
        )
        wait_until(lambda: refusals(hasty, "not_reading") == 1)
        hasty.wait_quiet()
    assert refusals(hasty, "not_reading") == 1


def test_a_client_that_did_not_read_may_come_back(hasty: Server) -> None:
    turn = [{"seed": 5, "opts": {"speed": 0.25}}, *[{"token": "word " * 20}] * 10, {"done": True}]
    path = f"{hasty.ws}/stream-tokens"
    with talk(path) as agent:
        for message in turn:
            agent.send(**message)
        assert agent.until_closed() == 1000
        whole = agent.sound
    with socket.create_connection(("127.0.0.1", hasty.port), PATIENCE) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        raw.sendall(b"GET /stream-tokens" + HANDSHAKE)
        assert raw.recv(65_536).startswith(b"HTTP/1.1 101")
        raw.sendall(b"".join(frame(1, json.dumps(message).encode()) for message in turn))
        wait_until(lambda: len(hasty.service.parking) == 1)
        [session] = [conversation.session for conversation in hasty.service.parking]
        with talk(path) as agent:
            agent.send(resume={"session": session, "samples": 0})
            assert agent.until_closed() == 1000
    assert agent.sound == whole


def test_the_metrics_count_refusals_by_their_code(strict: Server) -> None:
    with talk(f"{strict.ws}/stream-tokens") as agent:
        refused(agent, {"voice": "nobody"})
    assert refusals(strict, "unknown_voice") >= 1


def refusals(server: Server, code: str) -> float:
    """What /metrics says of a code."""
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    found = re.search(rf'^voice_server_refused_total{{code="{code}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_turn_that_finds_no_room_is_asked_to_come_later(path: str, server: Server) -> None:
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(talk(path)) for _ in range(5)]
        for agent in talks[:4]:  # babble has four slots
            agent.send(backend="babble", token="Hold the line please. ")
            agent.until("audio")
        talks[4].send(backend="babble", token="One too many. ")
        assert talks[4].until_closed() == 1013
        [error] = talks[4].of("error")
        assert (error["code"], error["retryable"]) == ("busy", True)
        for agent in talks[:4]:
            agent.send(done=True)
            assert agent.until_closed() == 1000
    began = time.monotonic()
    server.wait_quiet()
    assert time.monotonic() - began < 30
