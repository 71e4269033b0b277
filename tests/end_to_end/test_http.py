"""The doors that machines ask: what the server is, health, readiness, metrics, backends."""

from __future__ import annotations

import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import PATIENCE, PLAIN, Server, running, wait_until
from tests.end_to_end.talking import talk

STORY = "The first sentence is here. Then comes another one! And is this the last? It is."
LONG = " ".join(f"Sentence number {n} of a long speech." for n in range(20))


def test_the_root_says_what_this_is(http: httpx.Client) -> None:
    root = http.get("/").json()
    assert root["name"] == "Voice Server"
    assert root["default_backend"] == "tone"
    assert set(root["backends"]) >= {"tone", "espeak"}
    for link in ("docs", "openapi", "health", "ready", "metrics", "voices", "backends"):
        assert http.get(root["links"][link]).status_code == 200


def test_health_satisfies_the_seeds(http: httpx.Client) -> None:
    health = http.get("/health").json()
    assert health["status"] == "healthy"
    assert health["ok"] is True
    assert health["model_loaded"] is True
    assert isinstance(health["gpu_available"], bool)
    assert isinstance(health["vram_used_mb"], float)
    assert http.head("/health").status_code == 200


def test_ready_names_each_backend(http: httpx.Client) -> None:
    answer = http.get("/ready")
    assert answer.status_code == 200
    tone = answer.json()["backends"]["tone"]
    assert tone["ready"] is True
    assert (tone["workers"], tone["slots"], tone["reason"]) == (1, 1, "")


def test_a_server_answers_before_its_workers_are_warm_and_says_so(tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"        while not os.path.exists({str(go)!r}): time.sleep(0.02)\n        return"
    program = f"import os, time\n{PLAIN.replace('        return', wait, 1)}"
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "backend.py").write_text(program, encoding="utf-8")
    slow = f"default: slow\nbackends:\n  slow: {{python: {sys.executable}, path: slow}}\n"
    with running(tmp_path, "slow", yaml=slow) as server, ThreadPoolExecutor(1) as thread:
        answer = httpx.get(f"{server.url}/ready", timeout=PATIENCE)
        assert answer.status_code == 503
        assert answer.json()["status"] == "starting"
        assert "loading" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "1"
        health = httpx.get(f"{server.url}/health", timeout=PATIENCE).json()
        assert (health["status"], health["model_loaded"]) == ("healthy", False)
        # A request that comes meanwhile waits, and is served.
        asked = thread.submit(
            httpx.post, f"{server.url}/tts", json={"text": "Hello."}, timeout=PATIENCE
        )
        wait_until(lambda: server._uvicorn.server_state.tasks)
        go.touch()
        assert asked.result(PATIENCE).status_code == 200
        assert httpx.get(f"{server.url}/ready", timeout=PATIENCE).status_code == 200


def test_a_backend_that_does_not_start_gives_its_reason(tmp_path: Path) -> None:
    broken = f"""
default: tone
backends:
  tone: {{python: {sys.executable}}}
  chaos: {{python: {sys.executable}, options: {{refuse: true}}}}
"""
    with running(tmp_path, "chaos", "tone", yaml=broken) as server:
        server.wait_ready("tone")
        wait_until(lambda: server.service.pools["chaos"].last_error)
        answer = httpx.get(f"{server.url}/ready", timeout=PATIENCE).json()
        assert answer["code"] == "not_ready"
        assert "no GPU here" in answer["backends"]["chaos"]["reason"]
        assert answer["backends"]["tone"]["ready"] is True
        refused = httpx.post(f"{server.url}/tts", json={"text": "Hello."}, timeout=60)
        assert refused.status_code == 503
        assert "no GPU here" in refused.json()["detail"]
        spoken = httpx.post(
            f"{server.url}/tts", json={"text": "Hello.", "backend": "tone"}, timeout=PATIENCE
        )
        assert spoken.status_code == 200


def test_draining_refuses_what_is_new_and_finishes_what_runs(tmp_path: Path) -> None:
    with running(tmp_path, "babble") as server:
        server.wait_ready()
        with (
            talk(f"{server.ws}/stream-tokens") as agent,
            talk(f"{server.ws}/stream-tokens") as idle,
        ):
            idle.send(keep_open=True)
            idle.until("ready")
            agent.send(opts={"speed": 0.25}, token=LONG[:300], done=True)
            agent.until("audio")
            draining = server.begin_drain()
            wait_until(lambda: server.service.is_draining)
            assert httpx.get(f"{server.url}/ready", timeout=PATIENCE).json()["status"] == "draining"
            refused = httpx.post(f"{server.url}/tts", json={"text": "Hello."}, timeout=PATIENCE)
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert refused.headers["retry-after"]
            assert agent.until_closed() == 1000
            assert agent.of("done")[0]["stats"]["characters"] == 300
            assert idle.until_closed() == 1013
            assert idle.of("error")[0]["code"] == "draining"
            assert draining.result(30) is True


def test_draining_does_not_wait_for_whoever_has_dropped(tmp_path: Path) -> None:
    limits = {"resume_window": 600, "drain_timeout": 600}
    with running(tmp_path, "babble", limits=limits) as server:
        server.wait_ready()
        with talk(f"{server.ws}/stream-tokens") as agent:
            agent.send(backend="babble", token=LONG)
            agent.until("audio")
            agent.drop()
        wait_until(lambda: len(server.service.parking) == 1)
        assert server.begin_drain().result(PATIENCE) is True


def test_metrics_are_told_by_backend(http: httpx.Client) -> None:
    http.post("/tts", json={"text": STORY})
    http.post("/tts", json={"text": "Counted.", "backend": "babble"})
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for name in (
        "ttfa_seconds_count",
        "lead_seconds_count",
        "underruns_total",
        "queue",
        "slots",
        "slots_free",
        "workers",
        "audio_seconds_total",
        "characters_total",
    ):
        found = re.search(
            rf'^voice_server_{name}{{backend="tone"[^}}]*}} ', answer.text, re.MULTILINE
        )
        assert found, name
    assert "voice_server_worker_restarts" in answer.text
    counted = r'^voice_server_engine_events_total{backend="babble",event="frames"} [1-9]'
    assert re.search(counted, answer.text, re.MULTILINE)
    assert 'voice_server_turns_total{backend="tone",door="tts",outcome="done"}' in answer.text


def test_a_backend_can_have_its_workers_replaced(server: Server, http: httpx.Client) -> None:
    before = [w["pid"] for w in server.service.pools["plain"].snapshot()["workers"]]
    answer = http.post("/backends/plain/restart")
    assert answer.json() == {"backend": "plain", "workers": 1}
    after = [w["pid"] for w in server.service.pools["plain"].snapshot()["workers"]]
    assert set(before).isdisjoint(after)
    assert http.post("/backends/nothing/restart").status_code == 404


def test_backends_say_what_they_can_do(http: httpx.Client) -> None:
    backends = {entry["name"]: entry for entry in http.get("/backends").json()["backends"]}
    assert backends["tone"]["default"] is True
    assert backends["tone"]["info"]["options"] == ["speed"]
    assert backends["tone"]["info"]["clones"] is True
    assert backends["babble"]["info"]["streams_text"] is True
    assert "en" in str(backends["espeak"]["info"]["languages"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/tts", 405, "method_not_allowed"),
        ("PUT", "/health", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_answered_in_the_same_shape(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"] in answer.json()["detail"]


def test_a_socket_that_is_asked_as_a_page_says_what_it_is(http: httpx.Client) -> None:
    answer = http.get("/stream-tokens")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("/stream-tokens is a WebSocket: connect to it with")


def test_a_fault_of_ours_is_logged_and_not_told(
    server: Server,
    http: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(backend: str | None) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(server.service, "pool", broken)
    with caplog.at_level(logging.ERROR):
        answer = http.post("/tts", json={"text": "Hello."})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    wait_until(lambda: "a secret of the server" in caplog.text)
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(token="Hello.")
        assert agent.until_closed() == 1011
        assert agent.of("error")[0]["code"] == "internal_error"
        assert "secret" not in agent.of("error")[0]["msg"]


def test_an_unknown_socket_is_refused_before_it_opens(server: Server, http: httpx.Client) -> None:
    answer = http.get(
        "/no-such-socket",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        },
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
