"""A server with a key: every route, what browsers may do, and that no log shows a key."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.end_to_end.conftest import PATIENCE, Server, running, wait_until
from tests.end_to_end.talking import talk
from voice_server.web.auth import OPEN_LISTS, OPEN_PATHS

KEY = "a-key-that-nobody-guesses"
ORIGIN = "https://agent.example"
PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("locked")
    with running(folder, "tone", api_key=KEY, allowed_origins=ORIGIN) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def http(locked: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=locked.url, timeout=PATIENCE) as client:
        yield client


def handshake(url: str, headers: dict[str, str]) -> int:
    try:
        with connect(url, additional_headers=headers, open_timeout=PATIENCE):
            return 101
    except InvalidStatus as exc:
        return exc.response.status_code


@pytest.mark.parametrize("key", [None, "wrong", "é"])
def test_every_route_refuses_without_the_key(
    locked: Server, http: httpx.Client, key: str | None
) -> None:
    headers = {} if key is None else {"X-API-Key": key.encode()}
    refused = 0
    for route in locked.app.router.routes:
        path = getattr(route, "path", "").replace("{", "").replace("}", "").replace(":path", "")
        if path in OPEN_PATHS:
            continue
        if isinstance(route, WebSocketRoute):
            status = handshake(locked.ws + path, {"X-API-Key": key or ""})
        else:
            assert isinstance(route, Route)
            method = min(route.methods or {"GET"})
            if (method, path) in OPEN_LISTS:
                continue
            answer = http.request(method, path, headers=headers)
            status = answer.status_code
        assert status == 401, path
        refused += 1
    assert refused > 40


def test_the_key_opens(locked: Server, http: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for path in ("/", "/voices", "/backends", "/metrics", "/docs", "/openapi.json"):
        assert http.get(path, headers=headers).status_code == 200
    with talk(f"{locked.ws}/stream-tokens", additional_headers={"X-API-Key": KEY}) as agent:
        agent.send(token="Hello.", done=True)
        assert agent.until_closed() == 1000
    with talk(f"{locked.ws}/stream?text=Hello&api_key={KEY}") as listener:
        assert listener.until_closed() == 1000


def test_probes_need_none(locked: Server, http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    assert http.get("/ready").status_code == 200


def test_a_browser_that_opens_a_page_asks_for_the_key(locked: Server, http: httpx.Client) -> None:
    refused = http.get("/docs", headers=PAGE)
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert http.get("/docs", auth=("me", KEY)).status_code == 200
    # The request of a script must not make a browser ask.
    assert http.get("/voices").headers["www-authenticate"] == "Bearer"


def test_a_foreign_page_is_refused_even_with_the_key(locked: Server, http: httpx.Client) -> None:
    headers = {"X-API-Key": KEY, "Origin": "https://evil.example"}
    answer = http.get("/voices", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert "access-control-allow-origin" not in answer.headers
    assert handshake(f"{locked.ws}/stream-tokens", headers) == 403


def test_an_allowed_page_may_use_the_server(locked: Server, http: httpx.Client) -> None:
    asked = http.options(
        "/tts",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    headers = {"X-API-Key": KEY, "Origin": ORIGIN}
    answer = http.post("/tts", json={"text": "Hello."}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert handshake(f"{locked.ws}/stream-tokens", headers) == 101


def test_no_log_shows_a_key(
    locked: Server, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with caplog.at_level(logging.DEBUG):
        http.get(f"/voices?api_key={KEY}", headers=headers)
        http.get("/voices", headers={"X-API-Key": f"{KEY}x"})
        http.post("/tts", json={"text": 5}, headers=headers)
        for query in (f"api_key={KEY}", f"api_key={KEY}&voice=nobody", f"voice=low&api_key={KEY}x"):
            handshake(f"{locked.ws}/stream-tokens?{query}", {})
    ours = [
        record.getMessage() + str(record.exc_info or "")
        for record in caplog.records
        # The clients of this test log what they send; and what uvicorn says at DEBUG, of every
        # frame and header, the server's own logging never lets through.
        if record.threadName == "server" and record.levelno > logging.DEBUG
    ]
    assert any("/stream-tokens" in line for line in ours)
    assert not [line for line in ours if KEY in line]


def test_ready_tells_a_stranger_the_reason_and_no_line_of_a_worker(tmp_path: Path) -> None:
    broken = f"""
default: chaos
backends:
  chaos: {{python: {sys.executable}, options: {{load_exit: 7}}}}
"""
    with running(tmp_path, "chaos", yaml=broken, api_key=KEY) as server:
        wait_until(lambda: server.service.pools["chaos"].last_error)
        stranger = httpx.get(f"{server.url}/ready", timeout=PATIENCE)
        assert stranger.status_code == 503
        assert "exited with code 7" in stranger.text
        assert "library banner" not in stranger.text
        operator = httpx.get(f"{server.url}/ready", headers={"X-API-Key": KEY}, timeout=PATIENCE)
        assert "exited with code 7" in operator.text
        assert "library banner" in operator.text
