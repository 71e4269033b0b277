"""Everything the server has, through a relay: two processes, and the link between them."""

from __future__ import annotations

import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.end_to_end.cli_process import ROOT, run_cli, wait_for
from tests.end_to_end.relayed import AUTHORISED, PATIENCE, Pair, box, pair, relay
from tests.end_to_end.talking import Talk, talk
from tests.recordings import wav
from tests.tunnelling import API_KEY, self_signed

STORY = " ".join(f"This is sentence number {n} of the story." for n in range(12))
VOICES = "/api/v1/tts/voices"


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("relayed"), "--backend", "tone") as found:
        yield found


@pytest.fixture
def http(tunnel: Pair) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tunnel.url, headers=AUTHORISED, timeout=PATIENCE) as client:
        yield client


def said(port: int, **config: Any) -> Talk:
    """A whole turn at this port."""
    url = f"ws://127.0.0.1:{port}/stream-tokens"
    with talk(url, additional_headers=AUTHORISED) as agent:
        agent.send(**{"token": STORY, "done": True, "seed": 5, **config})
        agent.until("done")
        agent.until_closed()
    return agent


def curl(folder: Path, *arguments: str) -> tuple[int, bytes]:
    """Run curl as the document writes it."""
    done = subprocess.run(
        ["curl", "-sS", "-m", str(PATIENCE), "-w", "\n%{http_code}", *arguments],
        capture_output=True, cwd=folder, timeout=PATIENCE + 10,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def test_the_curl_lines_of_the_package_document_from_a_clean_start(tmp_path: Path) -> None:
    (tmp_path / "sample.wav").write_bytes(wav(3, 190))
    key = ("-H", f"Authorization: Bearer {API_KEY}")
    with pair(tmp_path, "--backend", "tone") as tunnel:
        package, into = f"{tunnel.url}{VOICES}/maya_cloned/package", f"{tunnel.url}{VOICES}/import"
        status, said = curl(
            tmp_path, *key, "-F", "file=@sample.wav", "-F", "name=Maya",
            "-F", "voice_id=maya_cloned", f"{tunnel.url}/api/v1/tts/clone",
        )  # fmt: skip
        assert status == 200, said
        # A clone is synchronised without anybody asking.
        wait_for(lambda: tunnel.status()["stored_packages"] == 1)
        assert curl(tmp_path, *key, package, "-o", "maya_cloned.voicepkg.zip")[0] == 200
        with zipfile.ZipFile(tmp_path / "maya_cloned.voicepkg.zip") as archive:
            assert "meta.json" in archive.namelist()
        upload = (*key, "-F", "file=@maya_cloned.voicepkg.zip", into)
        assert curl(tmp_path, *upload)[0] == 409
        assert curl(tmp_path, *key, "-X", "DELETE", f"{tunnel.url}{VOICES}/maya_cloned")[0] == 200
        wait_for(lambda: tunnel.status()["stored_packages"] == 0)
        assert curl(tmp_path, *upload)[0] == 200
        status, said = curl(tmp_path, *key, "-X", "POST", f"{tunnel.url}{VOICES}/sync")
        assert status == 200
        assert b"maya_cloned" in said
        assert tunnel.status()["stored_packages"] == 1
        assert curl(tmp_path, package)[0] == 401
        held = (tmp_path / "maya_cloned.voicepkg.zip").read_bytes()
        direct = f"http://127.0.0.1:{tunnel.direct}{VOICES}/maya_cloned/package"
        assert httpx.get(direct, headers=AUTHORISED, timeout=PATIENCE).content == held
    # The box is gone, and the relay too; it comes back alone.
    with relay(tmp_path) as port:
        answer = httpx.get(
            f"http://127.0.0.1:{port}{VOICES}/maya_cloned/package",
            headers=AUTHORISED, timeout=PATIENCE,
        )  # fmt: skip
        assert (answer.status_code, answer.content) == (200, held)


def test_every_route_is_there_and_answers_as_at_the_server(
    tunnel: Pair, http: httpx.Client
) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert len(paths) > 30
    own = {"/health", "/api/v1/status", "/metrics"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{tunnel.direct}", headers=AUTHORISED, timeout=PATIENCE
    ) as direct:
        for path in paths.keys() - own:
            for method in ("GET", "PATCH"):
                asked = path.replace("{", "").replace("}", "")
                here, there = http.request(method, asked), direct.request(method, asked)
                assert here.status_code == there.status_code, (method, path)
                assert here.headers.get("content-type") == there.headers.get("content-type")


@pytest.mark.parametrize(
    "config",
    [{}, {"framing": "msgpack"}, {"format": {"encoding": "mp3"}}, {"timestamps": True}],
    ids=["raw", "msgpack", "mp3", "timestamps"],
)
def test_a_turn_through_the_relay_is_the_turn_of_the_server(
    tunnel: Pair, config: dict[str, Any]
) -> None:
    here, there = said(tunnel.port, **config), said(tunnel.direct, **config)
    assert here.received
    assert here.sound == there.sound
    assert here.sentences == there.sentences
    assert here.close_code == 1000


def test_both_ends_say_that_they_are_connected(tunnel: Pair) -> None:
    direct = f"http://127.0.0.1:{tunnel.direct}/api/v1/status"
    status = httpx.get(direct, headers=AUTHORISED, timeout=PATIENCE).json()
    assert (status["relay"], status["tunnel_connected"]) == ("ok", True)
    assert tunnel.status().items() >= {"box": "home", **status}.items()


def test_an_interruption_crosses_at_once(tunnel: Pair) -> None:
    url = f"ws://127.0.0.1:{tunnel.port}/stream-tokens"
    with talk(url, additional_headers=AUTHORISED) as agent:
        agent.send(token=STORY * 40, keep_open=True)
        agent.until("audio")
        agent.send(cancel=True, played_ms=0)
        cancelled = agent.until("cancelled")
        assert cancelled["text_remaining"]
        agent.send(token="Something else now.", done=True)
        assert agent.until("generating")["sentence"] == "Something else now."
        agent.until("done")


def test_a_client_that_drops_resumes_through_the_relay(tunnel: Pair) -> None:
    whole = said(tunnel.direct)
    url = f"ws://127.0.0.1:{tunnel.port}/stream-tokens"
    with talk(url, additional_headers=AUTHORISED) as agent:
        agent.send(token=STORY, done=True, seed=5)
        session = agent.until("ready")["session"]
        agent.until("audio")
        agent.drop()
    with talk(url, additional_headers=AUTHORISED) as later:
        later.send(resume={"session": session, "samples": agent.received // 2})
        later.until("done")
        later.until_closed()
    assert agent.sound + later.sound == whole.sound


def metric(port: int, name: str) -> float:
    """A metric of the box, the sum over its labels."""
    url = f"http://127.0.0.1:{port}/metrics"
    lines = httpx.get(url, headers=AUTHORISED, timeout=PATIENCE).text.splitlines()
    parts = [line.rpartition(" ") for line in lines]
    return sum(float(value) for series, _, value in parts if series.partition("{")[0] == name)


def parked(port: int) -> float:
    """Sessions that are kept for a resume, once nobody is connected."""
    wait_for(lambda: metric(port, "voice_server_connections") == 0)
    return metric(port, "voice_server_parked_sessions")


def let_all_go(port: int) -> None:
    """Return when no session of an earlier test is kept, whose time would be up in the middle."""
    wait_for(lambda: parked(port) == 0)


@pytest.mark.parametrize("config", [{}, {"framing": "msgpack"}], ids=["raw", "msgpack"])
def test_a_turn_that_was_heard_to_its_end_is_not_kept(tunnel: Pair, config: dict[str, Any]) -> None:
    let_all_go(tunnel.direct)
    for _ in range(3):
        assert said(tunnel.port, **config).received
        assert parked(tunnel.direct) == 0


def test_what_was_lost_behind_the_close_can_be_had_again_through_the_relay(tunnel: Pair) -> None:
    whole = said(tunnel.direct)
    let_all_go(tunnel.direct)
    ended = metric(tunnel.direct, "voice_server_turns_total")
    url = f"ws://127.0.0.1:{tunnel.port}/stream-tokens"
    with talk(url, additional_headers=AUTHORISED, max_queue=1) as agent:
        # The turn ends, and its close waits unread behind the sound.
        agent.send(token=STORY, done=True, seed=5)
        session = agent.until("ready")["session"]
        wait_for(lambda: metric(tunnel.direct, "voice_server_turns_total") > ended)
        agent.drop()
    assert parked(tunnel.direct) == 1
    with talk(url, additional_headers=AUTHORISED) as later:
        later.send(resume={"session": session, "samples": 0})
        later.until_closed()
    assert later.sound == whole.sound
    assert parked(tunnel.direct) == 0


def test_a_ticket_opens_one_socket_through_the_relay(tunnel: Pair, http: httpx.Client) -> None:
    ticket = http.post("/tickets").json()["ticket"]
    url = f"ws://127.0.0.1:{tunnel.port}/stream-tokens?ticket={ticket}"
    with talk(url) as agent:
        agent.send(token="Hello.", done=True)
        agent.until("done")
    with pytest.raises(InvalidStatus), talk(url):
        pass


@pytest.mark.parametrize("kind", ["msgpack", "json"])
def test_the_link_is_cut_at_random_bytes_and_nobody_hears_it(tmp_path: Path, kind: str) -> None:
    chance = random.Random(11)
    with pair(tmp_path, "--backend", "tone", VOICE_SERVER_RELAY_ENCODING=kind) as tunnel:
        whole = said(tunnel.direct, timestamps=True)
        for _ in range(2):
            tunnel.wire.wire.cuts = [chance.randrange(500, 60_000) for _ in range(4)]
            tunnel.wire.cut()
            tunnel.wait_connected()
            heard = said(tunnel.port, timestamps=True)
            assert heard.sound == whole.sound
            assert heard.sentences == whole.sentences
        assert tunnel.wire.wire.connections > 4


def test_the_demonstration_of_packages_runs_through_the_relay(tunnel: Pair) -> None:
    done = subprocess.run(
        [sys.executable, "demo_voice_packaging.py", "--url", tunnel.url, "--api-key", API_KEY],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 2 voices are back" in done.stdout
    assert (
        httpx.get(f"{tunnel.url}{VOICES}", headers=AUTHORISED, timeout=PATIENCE).json()["total"]
        == 0
    )


def test_over_tls_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = {
        "VOICE_SERVER_RELAY_CERTIFICATE": str(certificate),
        "VOICE_SERVER_RELAY_CERTIFICATE_KEY": str(key),
    }
    with relay(tmp_path, **tls) as port:
        url = f"wss://localhost:{port}"
        with box(tmp_path, url, "--backend", "tone", VOICE_SERVER_RELAY_CA=str(certificate)):
            import ssl

            with httpx.Client(
                base_url=f"https://localhost:{port}", headers=AUTHORISED, timeout=PATIENCE,
                verify=ssl.create_default_context(cafile=certificate),
            ) as http:  # fmt: skip
                wait_for(lambda: http.get("/api/v1/status").json()["tunnel_connected"])
                assert http.post("/tts", json={"text": "Hello."}).content[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("url", "env", "said"),
    [
        ("ws://relay.example.com", {}, "use wss://"),
        ("https://relay.example.com", {}, "expected such as wss://"),
        ("wss://relay.example.com", {"VOICE_SERVER_API_KEY": ""}, "set VOICE_SERVER_API_KEY"),
        ("wss://relay.example.com", {"VOICE_SERVER_RELAY_KEY": ""}, "VOICE_SERVER_RELAY_KEY"),
    ],
)
def test_a_relay_that_would_not_be_safe_is_not_dialled(
    tmp_path: Path, url: str, env: dict[str, str], said: str
) -> None:
    keys = {"VOICE_SERVER_API_KEY": API_KEY, "VOICE_SERVER_RELAY_KEY": "0123456789abcdef"}
    done = run_cli(tmp_path, "serve", "--relay", url, "--port", "0", **{**keys, **env})
    assert done.returncode == 2
    assert said in done.stderr
