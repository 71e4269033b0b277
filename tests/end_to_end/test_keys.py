"""Who may do what: every door without a key, keys with scopes and rates, tickets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.end_to_end.catalogue_server import PATIENCE, Server, serving
from voice_server.web.access import scope_of
from voice_server.web.app import DOORS
from voice_server.web.auth import OPEN_LISTS
from voice_server.web.operations import Operation

MASTER = "master-key-for-tests-0123456789"
OPEN = {"/health", "/ready"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    with serving(folder, VOICE_SERVER_API_KEY=MASTER) as running:
        running.recording("sample.wav", 200)
        yield running


def bearer(key: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {key}"


def new_key(server: Server, *scopes: str, rate: str = "") -> dict[str, Any]:
    made: dict[str, Any] = server.json(
        *(
            "-X",
            "POST",
            server.url("/keys"),
            *bearer(MASTER),
            "-H",
            "Content-Type: application/json",
        ),
        *("-d", json.dumps({"name": "test", "scopes": scopes, "rate": rate})),
        status=201,
    )
    return made


def open_socket(server: Server, path: str, **options: Any) -> int:
    """The status of the handshake."""
    try:
        with connect(f"ws://127.0.0.1:{server.port}{path}", **options, open_timeout=PATIENCE):
            return 101
    except InvalidStatus as exc:
        return exc.response.status_code


ROUTES = [route for door in DOORS for route in door.routes()]


@pytest.mark.parametrize("key", [None, "wrong", "é", "vs_" + "x" * 43])
def test_every_door_is_closed_without_a_good_key(server: Server, key: str | None) -> None:
    shown = () if key is None else bearer(key)
    checked = 0
    for route in ROUTES:
        path = route.path.replace("{", "").replace("}", "")
        if isinstance(route, Operation):
            is_open = path in OPEN or (route.method, path) in OPEN_LISTS
            assert route.is_open is is_open, path
            if is_open:
                continue
            path = route.described_path.replace("{", "").replace("}", "")
            status, body = server.curl("-X", route.method, server.url(path), *shown)
            assert status == 401, path
            _, problem = route.refused(401)
            if problem is None:
                assert json.loads(body)["code"] == "unauthorized", path
            else:  # as its vendor does it
                problem.model_validate_json(body, extra="forbid")
            checked += 1
        elif isinstance(route, WebSocketRoute):
            headers = {} if key is None or not key.isascii() else {"X-API-Key": key}
            assert open_socket(server, path, additional_headers=headers) == 401, path
            checked += 1
    assert checked > 40


def test_what_no_row_names_is_for_an_admin() -> None:
    assert scope_of("POST", "/keys") == "admin"
    assert scope_of("DELETE", "/voices") == "admin"
    assert scope_of("WS", "/something/new") == "admin"
    assert scope_of("POST", "/models/unload") == "admin"
    assert scope_of("POST", "/backends/tone/restart") == "admin"


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("speak",), {"list", "speak"}),
        (("voices",), {"list", "voices"}),
        (("speak", "voices"), {"list", "speak", "voices"}),
        (("admin",), {"list", "speak", "voices", "admin"}),
    ],
)
def test_a_key_opens_what_its_scopes_name(
    server: Server, scopes: tuple[str, ...], may: set[str]
) -> None:
    key = new_key(server, *scopes)["key"]
    json_body = ("-H", "Content-Type: application/json", "-d")
    attempts = {
        "list": ("/profiles",),
        "speak": ("-X", "POST", "/tts", *json_body, '{"text": "Hello."}'),
        "voices": ("-X", "POST", "/upload", "-F", "audio=@sample.wav"),
        "admin": ("/keys",),
    }
    for name, arguments in attempts.items():
        named = [server.url(a) if a.startswith("/") else a for a in arguments]
        status, body = server.curl(*named, *bearer(key))
        assert status == (200 if name in may else 403), (name, body[:300])
        if status == 403:
            assert json.loads(body)["code"] == "missing_scope"
    headers = {"Authorization": f"Bearer {key}"}
    assert open_socket(server, "/ws", additional_headers=headers) == (
        101 if "voices" in may else 403
    )
    assert open_socket(server, "/stream-tokens", additional_headers={"X-API-Key": key}) == (
        101 if "speak" in may else 403
    )


def test_a_revoked_key_is_none(server: Server) -> None:
    made = new_key(server, "speak")
    assert server.curl(server.url("/voices"), *bearer(made["key"]))[0] == 200
    server.json("-X", "DELETE", server.url(f"/keys/{made['id']}"), *bearer(MASTER))
    assert server.curl(server.url("/voices"), *bearer(made["key"]))[0] == 401
    gone = server.json(
        "-X", "DELETE", server.url(f"/keys/{made['id']}"), *bearer(MASTER), status=404
    )
    assert gone["code"] == "unknown_key"


def test_a_key_that_asks_too_often_is_told_when_to_ask_again(server: Server) -> None:
    key = new_key(server, "speak", rate="3/minute")["key"]
    statuses = [server.curl(server.url("/voices"), *bearer(key))[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    status, head = server.curl("-D", "-", "-o", "/dev/null", server.url("/voices"), *bearer(key))
    assert status == 429
    assert b"retry-after:" in head.lower()
    other = new_key(server, "speak", rate="3/minute")["key"]
    assert server.curl(server.url("/voices"), *bearer(other))[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x", "scopes": []}, "invalid_request"),
        ({"name": "x", "scopes": ["root"]}, "invalid_request"),
        ({"name": " ", "scopes": ["speak"]}, "bad_name"),
        ({"name": "x", "rate": "often"}, "bad_rate"),
    ],
)
def test_a_wrong_key_is_not_made(server: Server, body: dict[str, Any], code: str) -> None:
    status, answer = server.curl(
        *(
            "-X",
            "POST",
            server.url("/keys"),
            *bearer(MASTER),
            "-H",
            "Content-Type: application/json",
        ),
        *("-d", json.dumps(body)),
    )
    assert status in (400, 422)
    assert json.loads(answer)["code"] == code


def test_a_ticket_opens_one_socket_once(server: Server) -> None:
    key = new_key(server, "speak")["key"]
    issued = server.json("-X", "POST", server.url("/tickets"), *bearer(key))
    assert issued["expires_in"] == 60
    path = f"/stream-tokens?voice=low&ticket={issued['ticket']}"
    assert open_socket(server, path) == 101
    assert open_socket(server, path) == 401
    assert open_socket(server, "/stream-tokens?ticket=invented") == 401
    voices_ticket = server.json("-X", "POST", server.url("/tickets"), *bearer(key))["ticket"]
    assert open_socket(server, f"/ws?ticket={voices_ticket}") == 403
    # A ticket is for sockets alone.
    again = server.json("-X", "POST", server.url("/tickets"), *bearer(key))["ticket"]
    assert server.curl(server.url(f"/voices?ticket={again}"))[0] == 401


def test_no_secret_is_written_anywhere(server: Server) -> None:
    made = new_key(server, "speak")
    ticket = server.json("-X", "POST", server.url("/tickets"), *bearer(made["key"]))["ticket"]
    open_socket(server, f"/stream-tokens?ticket={ticket}")
    open_socket(server, f"/stream-tokens?api_key={made['key']}")
    for path in server.folder.rglob("*"):
        if path.is_file() and path.suffix != ".wav":
            content = path.read_bytes()
            for secret in (MASTER, made["key"], ticket):
                assert secret.encode() not in content, path


def test_the_first_key_of_an_open_server_is_an_admins_and_closes_it(server: Server) -> None:
    folder = server.folder / "open"
    folder.mkdir()
    with serving(folder) as opened:
        refused = opened.post("/keys", {"name": "me", "scopes": ["speak"]}, status=400)
        assert refused["code"] == "bad_scope"
        made = opened.post("/keys", {"name": "me", "scopes": ["admin"]}, status=201)
        assert opened.curl(opened.url("/voices"))[0] == 401
        assert opened.curl(opened.url("/voices"), *bearer(made["key"]))[0] == 200
