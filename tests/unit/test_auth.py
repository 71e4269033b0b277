"""The gate: keys, origins and host names, without a server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from voice_server.config import load_config
from voice_server.core.errors import ConfigError
from voice_server.web.auth import Gate

KEY = "correct horse battery staple"
Headers = dict[str, str | bytes]


def raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def ask(
    gate_options: dict[str, Any],
    headers: Headers | None = None,
    *,
    kind: str = "http",
    path: str = "/voices",
    query: bytes = b"",
) -> tuple[int, dict[str, Any]]:
    """The status that comes out of the gate, 200 when it opened; and the scope as it was left."""
    opened = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        opened.append(scope)

    async def receive() -> dict[str, str]:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": query,
        "headers": [(k.lower().encode(), raw(v)) for k, v in (headers or {}).items()],
    }
    gate = Gate(app, **{"api_key": KEY, **gate_options})
    asyncio.run(gate(scope, receive, send))
    return (200 if opened else sent[0]["status"]), scope


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer  {KEY} "}, 200),
        ({"Authorization": f"Token {KEY}"}, 200),
        ({"Authorization": KEY}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": basic("anybody", KEY)}, 200),
        ({"Authorization": basic(KEY, "")}, 401),
        ({"Authorization": "Basic !!!"}, 401),
        ({"X-API-Key": KEY}, 200),
        ({"X-API-Key": "é"}, 401),
        ({"X-API-Key": "é".encode("latin-1")}, 401),
        ({"X-API-Key": b"\xff\x00"}, 401),
        ({"Authorization": "Bearer wrong", "X-API-Key": KEY}, 200),
    ],
)
def test_a_key_opens_however_it_is_shown(kind: str, headers: Headers, status: int) -> None:
    assert ask({}, headers, kind=kind)[0] == status


def test_a_key_may_be_written_in_any_alphabet() -> None:
    options = {"api_key": "schlüssel-é-鍵"}
    assert ask(options, {"X-API-Key": "schlüssel-é-鍵"})[0] == 200
    assert ask(options, {"X-API-Key": "schlüssel-e-鍵"})[0] == 401
    query = b"api_key=schl%C3%BCssel-%C3%A9-%E9%8D%B5"
    assert ask(options, kind="websocket", query=query)[0] == 200


def test_a_key_in_the_query_opens_sockets_alone_and_is_taken_out() -> None:
    query = b"voice=low&api_key=correct+horse+battery%20staple&backend=tone"
    status, scope = ask({}, kind="websocket", query=query)
    assert status == 200
    assert scope["query_string"] == b"voice=low&backend=tone"
    status, scope = ask({}, query=query)
    assert status == 401
    assert b"horse" not in scope["query_string"]


def test_probes_need_no_key_and_are_not_told_everything() -> None:
    for path in ("/health", "/ready"):
        status, scope = ask({}, path=path)
        assert status == 200
        assert scope["state"]["is_known"] is False
        assert ask({}, {"X-API-Key": KEY}, path=path)[1]["state"]["is_known"] is True
        assert ask({}, path=path, kind="websocket")[0] == 401


@pytest.mark.parametrize("path", ["/health/", "/ready/../voices", "//health", "/HEALTH", "/docs"])
def test_nothing_else_looks_like_a_probe(path: str) -> None:
    assert ask({}, path=path)[0] == 401


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("api_key", [None, KEY])
@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8000", "localhost:8000", 200),
        ("https://LOCALHOST:8000", "localhost:8000", 200),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 200),
        ("http://localhost:3000", "localhost:8000", 403),
        ("https://evil.example", "localhost:8000", 403),
        ("null", "localhost:8000", 403),
        ("null", "", 403),
        ("", "localhost:8000", 403),
        ("http://[", "localhost:8000", 403),
        ("http://localhost:8000@evil.example", "localhost:8000", 403),
        ("https://agent.example", "localhost:8000", 200),
    ],
)
def test_a_foreign_page_is_refused_with_or_without_a_key(
    kind: str, api_key: str | None, origin: str, host: str, status: int
) -> None:
    options = {"api_key": api_key, "allowed_origins": ("https://agent.example",)}
    headers: Headers = {"X-API-Key": KEY, "Origin": origin, "Host": host}
    assert ask(options, headers, kind=kind)[0] == status


def test_any_origin_may_be_allowed() -> None:
    headers: Headers = {"X-API-Key": KEY, "Origin": "https://a.example", "Host": "b.example"}
    assert ask({"allowed_origins": ("*",)}, headers)[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("voice.localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5", 200),
        ("", 200),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("[", 403),
        ("agent.example", 200),
    ],
)
def test_a_server_without_a_key_answers_to_no_name_that_others_can_give_it(
    host: str, status: int
) -> None:
    options = {"api_key": None, "allowed_origins": ("https://agent.example",)}
    assert ask(options, {"Host": host})[0] == status
    assert ask({}, {"Host": host, "X-API-Key": KEY})[0] == 200


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ()),
        ("https://Agent.example/", ("https://agent.example",)),
        (
            "https://a.example, http://b.example:3000",
            ("https://a.example", "http://b.example:3000"),
        ),
        ("*", ("*",)),
    ],
)
def test_origins_are_a_setting(
    monkeypatch: pytest.MonkeyPatch, written: str, read: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VOICE_SERVER_ALLOWED_ORIGINS", written)
    assert load_config().settings.allowed_origins == read


def test_an_origin_that_is_none_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SERVER_ALLOWED_ORIGINS", "agent.example")
    with pytest.raises(ConfigError, match=r"ALLOWED_ORIGINS › expected origins such as"):
        load_config()
