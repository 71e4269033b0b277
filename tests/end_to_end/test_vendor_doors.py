"""What holds at every vendor's door: keys, refusals, metrics, and a client that goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.end_to_end.conftest import PATIENCE, Server, running, wait_until
from tests.end_to_end.talking import talk

KEY = "a-key-that-nobody-guesses"
TEXT = "Hello there, my friend."
LONG = "This sentence is said again and again. " * 500


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("locked"), "tone", api_key=KEY) as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"Token {KEY}"},
        {"xi-api-key": KEY},
        {"X-API-Key": KEY},
        {"X-VAPI-SECRET": KEY},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_each_vendor_s_header_holds_the_key(locked: Server, headers: dict[str, str]) -> None:
    assert (
        httpx.get(f"{locked.url}/v1/models", headers=headers, timeout=PATIENCE).status_code == 200
    )


def test_a_browser_shows_the_key_as_a_protocol(locked: Server) -> None:
    address = f"{locked.ws}/stream-tokens"
    for key, expected in ((KEY, 101), ("wrong", 401)):
        try:
            with connect(address, subprotocols=["token", key], open_timeout=PATIENCE):  # type: ignore[list-item]
                status = 101
        except InvalidStatus as exc:
            status = exc.response.status_code
        assert status == expected


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        ("/v1/models", {}, {"error"}),
        ("/v1/models", {"xi-api-key": "wrong"}, {"detail"}),
        ("/openai/v1/models", {"xi-api-key": "wrong"}, {"error"}),
        ("/elevenlabs/v1/models", {}, {"detail"}),
        ("/voices", {}, {"detail", "code", "retryable"}),
    ],
)
def test_a_refusal_has_the_shape_of_whoever_asks(
    locked: Server, path: str, headers: dict[str, str], shape: set[str]
) -> None:
    answer = httpx.get(locked.url + path, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 401
    assert answer.json().keys() == shape


def test_lists_for_open_webui_need_no_key_and_cloning_does(locked: Server) -> None:
    voices = httpx.get(f"{locked.url}/v1/audio/voices", timeout=PATIENCE).json()["voices"]
    assert {"alloy", "high"} <= {voice["id"] for voice in voices}
    assert httpx.get(f"{locked.url}/v1/audio/models", timeout=PATIENCE).json()["models"]
    assert httpx.post(f"{locked.url}/v1/audio/voices", timeout=PATIENCE).status_code == 401


def test_no_log_shows_what_a_mounted_address_holds(
    locked: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    query = f"api_key={KEY}&output_format=pcm_24000"
    address = f"{locked.ws}/elevenlabs/v1/text-to-speech/high/stream-input?{query}"
    with connect(address, open_timeout=PATIENCE) as socket:
        socket.send('{"text": ""}')
        assert json.loads(socket.recv(PATIENCE))["isFinal"]
    assert KEY not in caplog.text


def test_an_alias_names_the_voice_and_openai_s_names_stand_in(http: httpx.Client) -> None:
    def spoken(voice: str) -> bytes:
        body = {"input": TEXT, "voice": voice, "model": "tone", "response_format": "pcm"}
        answer = http.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    assert spoken("af_heart") == spoken("high") != spoken("low")
    assert spoken("alloy") == spoken("")


def test_a_voice_of_another_backend_is_spoken_by_that_one(http: httpx.Client) -> None:
    def spoken(**more: str) -> bytes:
        body = {"input": TEXT, "voice": "en-gb", "response_format": "pcm", **more}
        return http.post("/v1/audio/speech", json=body).content

    # The default backend is tone, which has no such voice.
    assert len(spoken(model="tts-1")) == len(spoken(model="espeak")) > 24_000


@pytest.mark.parametrize("voice", [7, ["high"], {"name": "high"}, {"id": 7}])
def test_a_voice_of_the_wrong_kind_is_told_as_the_field_voice(
    http: httpx.Client, voice: object
) -> None:
    answer = http.post("/v1/audio/speech", json={"input": TEXT, "voice": voice})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("voice", "voice.id")


def test_turns_are_counted_by_door(http: httpx.Client) -> None:
    http.post("/v1/audio/speech", json={"input": TEXT})
    http.post("/v1/text-to-speech/high", json={"text": TEXT})
    http.post("/v1/speak?model=tone", json={"text": TEXT})
    http.post("/tts/bytes", json={"transcript": TEXT, "model_id": "tone"})
    http.post("/telephony/vapi", json={"message": {"type": "voice-request", "text": TEXT}})
    told = http.get("/metrics").text
    for door in ("openai", "elevenlabs", "deepgram", "cartesia", "telephony"):
        assert f'voice_server_turns_total{{backend="tone",door="{door}",outcome="done"}}' in told


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"input": LONG, "model": "babble", "response_format": "pcm"}),
        (
            "/v1/audio/speech",
            {"input": LONG, "model": "babble", "response_format": "pcm", "stream_format": "sse"},
        ),
        ("/v1/text-to-speech/babble/stream", {"text": LONG, "model_id": "babble"}),
        ("/v1/text-to-speech/babble/stream/with-timestamps", {"text": LONG, "model_id": "babble"}),
        ("/v1/speak?model=babble&encoding=linear16", {"text": LONG}),
        ("/tts/bytes", {"transcript": LONG, "model_id": "babble"}),
        ("/tts/sse", {"transcript": LONG, "model_id": "babble"}),
        ("/telephony/jambonz?model=babble", {"text": LONG}),
        (
            "/telephony/vapi?model=babble",
            {"message": {"type": "voice-request", "text": LONG, "sampleRate": 8_000}},
        ),
    ],
)
def test_hanging_up_frees_the_slot(
    server: Server, http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    voices = [voice["id"] for voice in http.get("/voices?backend=babble").json()["voices"]]
    path = path.replace("/babble/", f"/{voices[0]}/" if voices else "/babble/")
    with http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_raw())
    wait_until(lambda: not server.turns and not server.busy_slots)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/text-to-speech/high/stream-input", {"text": LONG}),
        ("/v1/text-to-speech/high/multi-stream-input", {"text": LONG, "context_id": "a"}),
        ("/v1/speak?model=tone", {"type": "Speak", "text": LONG}),
        ("/v2/speak?model=tone", {"type": "Speak", "text": LONG}),
        ("/tts/websocket", {"transcript": LONG, "model_id": "tone", "context_id": "a"}),
        ("/telephony/jambonz?model=tone", {"type": "stream", "text": LONG}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_socket_that_drops_without_a_word_is_not_waited_for(
    server: Server, path: str, said: dict[str, object]
) -> None:
    with talk(f"{server.ws}{path}") as agent:
        agent.send(**said)
        wait_until(lambda: server.turns)
        agent.drop()
    wait_until(lambda: not server.turns and not server.service._sockets)
    assert not len(server.service.parking)


@pytest.mark.parametrize("names", [["a"] * 3, [f"{n}" for n in range(20)]], ids=["one", "many"])
def test_contexts_of_elevenlabs_that_end_before_their_text_cost_no_others(
    server: Server, names: list[str]
) -> None:
    path = "/v1/text-to-speech/high/multi-stream-input?output_format=pcm_24000"
    with connect(f"{server.ws}{path}", open_timeout=PATIENCE) as socket:

        def ended(**said: object) -> bool:
            """Whether sound came before the end of the context."""
            for message in (said, {"context_id": said["context_id"], "close_context": True}):
                socket.send(json.dumps(message))
            has_sound = False
            while not (told := json.loads(socket.recv(PATIENCE))).get("isFinal"):
                has_sound |= bool(told["audio"])
            assert told["contextId"] == said["context_id"]
            return has_sound

        for name in names:
            assert not ended(context_id=name, text=" ")
        for name in names[:2]:  # the second one shows that the socket outlives the first
            assert ended(context_id=name, text="One. ", flush=True)


def test_a_server_that_is_full_says_so_in_the_vendor_s_words(tmp_path: Path) -> None:
    with running(tmp_path, "tone") as server:
        server.wait_ready()
        assert server.begin_drain().result(PATIENCE) is True
        answer = httpx.post(f"{server.url}/v1/audio/speech", json={"input": TEXT}, timeout=PATIENCE)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert answer.headers["retry-after"] == "1"
        answer = httpx.post(
            f"{server.url}/v1/text-to-speech/high", json={"text": TEXT}, timeout=PATIENCE
        )
        assert (answer.status_code, answer.json()["detail"]["status"]) == (503, "system_busy")
