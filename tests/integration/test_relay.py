"""The relay and its agent over real sockets, with a small application in the place of the server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.tunnelling import (
    API_KEY,
    PATIENCE,
    Notes,
    World,
    dial,
    heard,
    pattern,
    play,
    relay_config,
    self_signed,
    served,
    settled,
    until,
)
from voice_server.cli.relay import tls_of
from voice_server.config import load_config
from voice_server.core.errors import ConfigError, Forbidden
from voice_server.relay.agent import Agent, Dial
from voice_server.relay.app import Relay

AGENT, BOXES = "voice_server.relay.agent", "voice_server.relay.boxes"

# -- what crosses --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_request_crosses_whole_and_so_does_its_answer(tmp_path: Path, encoding: str) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        answer = await world.http.get("/tell?a=1&b=%20", headers={"X-Mine": "é".encode()})
        assert (answer.status_code, answer.text) == (201, "GET /tell?a=1&b=%20")
        assert answer.headers.get_list("x-two") == ["1", "2"]
        scope = notes.seen[-1]
        assert (b"x-mine", "é".encode()) in scope["headers"]
        assert scope["client"][0] == "127.0.0.1"
        body = pattern(3_000_000)
        answer = await world.http.post("/digest", content=body)
        assert answer.text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        assert (await world.http.get("/download?500000")).content == pattern(500_000)

    play(tmp_path, scenario, encoding=encoding)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_websocket_crosses_both_ways_to_its_close(tmp_path: Path, encoding: str) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/echo") as socket:
            assert socket.response.headers["x-box"] == "yes"
            for message in ("Grüße ☕", b"\x00\xff" * 5_000, "", b"", "x" * 200_000):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.close(4321, "enough")
        await until(lambda: notes.gone)
        assert notes.gone == [{"type": "websocket.disconnect", "code": 4321, "reason": "enough"}]
        async with world.socket("/count?5") as socket:
            assert await heard(socket) == b"".join(pattern(960, n) for n in range(5))
            assert (socket.close_code, socket.close_reason) == (1000, "all said")

    play(tmp_path, scenario, encoding=encoding)


def test_a_websocket_that_the_box_refuses_is_refused_with_its_answer(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        with pytest.raises(InvalidStatus) as caught:
            await world.socket("/denied")
        assert caught.value.response.status_code == 403
        assert caught.value.response.headers["x-why"] == "no"

    play(tmp_path, scenario)


def test_a_client_that_leaves_is_told_to_the_application_at_once(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        request = asyncio.create_task(world.http.get("/never"))
        await until(lambda: notes.seen)
        request.cancel()
        await until(lambda: notes.gone)
        async with world.socket("/echo") as socket:
            socket.transport.abort()
        await until(lambda: len(notes.gone) == 2)
        assert notes.gone[1]["type"] == "websocket.disconnect"
        assert notes.gone[1]["code"] not in (1000, 1001)
        await until(lambda: not world.relay.boxes["home"].streams)

    play(tmp_path, scenario)


def test_a_listener_that_does_not_read_holds_up_nobody_else(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/flood", max_queue=1) as slow:
            held = await settled(lambda: notes.flooded)  # all on the way to it is full
            assert held < 16_000_000
            async with world.socket("/echo") as quick:
                for number in range(50):
                    await quick.send(f"{number}")
                    assert await quick.recv() == f"{number}"
            assert notes.flooded == held
            slow.transport.abort()
        await until(lambda: any(isinstance(gone, OSError) for gone in notes.gone))

    play(tmp_path, scenario)


def test_an_answer_that_breaks_off_is_seen_to_be_broken(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async def listen() -> None:
            async with world.http.stream("GET", "/broken") as answer:
                async for part in answer.aiter_bytes():
                    notes.served.append(part.decode())

        with pytest.raises(httpx.RemoteProtocolError):
            await listen()
        assert "half" in notes.served
        assert (await world.http.get("/tell")).status_code == 201

    play(tmp_path, scenario)


def test_a_message_that_is_too_long_for_the_tunnel_ends_its_socket_alone(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/echo") as good, world.socket("/echo") as bad:
            await bad.send("x" * 300_000)
            with pytest.raises(ConnectionClosed):
                await bad.recv()
            assert bad.close_code == 1009
            await good.send("still here")
            assert await good.recv() == "still here"

    play(tmp_path, scenario)


# -- links that drop -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_link_that_is_cut_anywhere_costs_no_byte(tmp_path: Path, encoding: str) -> None:
    chance = random.Random(7)

    async def scenario(world: World, notes: Notes) -> None:
        async def listen(count: int) -> None:
            async with world.socket(f"/count?{count}") as socket:
                assert await heard(socket) == b"".join(pattern(960, n) for n in range(count))
                assert socket.close_code == 1000

        async def download() -> None:
            assert (await world.http.get("/download?400000")).content == pattern(400_000)

        async def upload() -> None:
            answer = await world.http.post("/digest", content=pattern(400_000))
            assert answer.text.startswith("400000 ")

        world.wire.cuts = [chance.randrange(400, 150_000) for _ in range(9)]
        # Cuts before the handshake is over, too: they cost a try, not the session.
        world.wire.cuts[3:3] = [0, 150, 600]
        work = [
            asyncio.create_task(part) for part in (listen(250), listen(300), download(), upload())
        ]
        await until(lambda: len(notes.seen) == 4)
        world.wire.cut()
        await asyncio.gather(*work)
        assert world.wire.connections > 6
        await world.connected()

    play(tmp_path, scenario, encoding=encoding)


def test_a_turn_goes_on_while_there_is_no_link(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/count?300") as socket:
            first = await socket.recv()
            world.wire.is_open = False
            world.wire.cut()
            await until(lambda: not world.relay.boxes["home"].is_connected)
            refused = await world.http.get("/tell")
            assert refused.status_code == 503
            # The application says all it has into the buffer, and ends.
            await until(lambda: notes.closed)
            world.wire.is_open = True
            rest = await heard(socket)
            assert first + rest == b"".join(pattern(960, n) for n in range(300))
        await until(lambda: notes.gone)
        assert notes.gone == [{"type": "websocket.disconnect", "code": 1000}]

    play(tmp_path, scenario)


def test_a_session_whose_time_is_up_ends_everywhere(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        waiting = asyncio.create_task(world.http.get("/never"))
        async with world.socket("/echo") as socket:
            await socket.send("before")
            await socket.recv()
            await until(lambda: len(notes.seen) == 2)
            world.wire.is_open = False
            world.wire.cut()
            answer = await waiting
            assert (answer.status_code, answer.json()["code"]) == (503, "tunnel_down")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (1013, "tunnel_down")
        await until(lambda: len(notes.gone) == 2)
        world.wire.is_open = True
        await world.connected()
        assert (await world.http.get("/tell")).status_code == 201

    play(tmp_path, scenario, window=0.3)


def test_a_link_that_falls_silent_is_given_up_and_made_again(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/count?400") as socket:
            # From here on the wire swallows everything, and says nothing of it.
            world.wire.silence()
            whole = await heard(socket)
            assert whole == b"".join(pattern(960, n) for n in range(400))
        assert world.wire.connections >= 2

    play(tmp_path, scenario, keepalive=0.2)


def test_a_relay_that_is_restarted_gets_its_boxes_back_and_mixes_nothing_up(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        notes = Notes()
        config = relay_config(tmp_path)
        async with served(Relay(config), config) as port:
            agent = Agent(notes, dial(port))
            agent.start()
            await until(lambda: agent.is_connected)
        for _ in range(3):
            relay = Relay(config)
            async with served(relay, config, port) as same:
                assert same == port
                await until(lambda: agent.is_connected)
                headers = {"X-API-Key": API_KEY}
                async with httpx.AsyncClient(headers=headers, timeout=PATIENCE) as http:
                    asked = [http.get(f"http://127.0.0.1:{port}/tell?{n}") for n in range(10)]
                    answers = await asyncio.gather(*asked)
                assert [a.text for a in answers] == [f"GET /tell?{n}" for n in range(10)]
        await agent.stop()

    asyncio.run(run())


# -- who is let in -------------------------------------------------------------------------------


def test_without_a_key_nothing_reaches_the_box(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with httpx.AsyncClient(base_url=str(world.http.base_url), timeout=PATIENCE) as http:
            for path in ("/tell", "/api/v1/status", "/boxes/home/tell", "/nonsense"):
                answer = await http.get(path)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert (await http.get("/health")).json()["relay"] == "ok"
            assert not notes.seen
            assert (await http.get("/ready")).text == "ready"
        with pytest.raises(InvalidStatus) as caught:
            await world.socket("/echo", additional_headers={})
        assert caught.value.response.status_code == 401
        # One that shows something is for the box to judge, secrets of the query included.
        async with world.socket("/echo?ticket=abc&voice=x", additional_headers={}):
            await until(lambda: notes.seen[-1]["path"] == "/echo")
            assert notes.seen[-1]["query_string"] == b"ticket=abc&voice=x"

    play(tmp_path, scenario)


def test_a_box_with_a_wrong_key_or_name_stays_outside(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario(world: World, notes: Notes) -> None:
        for wrong in ({"key": "another"}, {"name": "cellar"}):
            agent = Agent(notes, dial(world.port, **wrong))
            agent.start()
            await until(lambda: caplog.text.count("was refused: no box of this name") > 0)
            assert not agent.is_connected
            await agent.stop()
            caplog.clear()
        assert (await world.http.get("/tell")).status_code == 201

    play(tmp_path, scenario)


def test_a_box_and_a_relay_of_different_versions_are_told_so(
    tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        refused = world.relay._metrics.refused.labels("tunnel_version")
        with monkeypatch.context() as older:
            older.setattr(f"{AGENT}.SUBPROTOCOLS", {"voice-tunnel-2.msgpack": "msgpack"})
            another = Agent(notes, dial(world.port, name="other"))
            another.start()
            await until(lambda: "refuses this box" in caplog.text and refused._value.get() >= 2)
            await another.stop()
        assert caplog.text.count("a box at 127.0.0.1 was refused") == 1
        [by_relay, by_box] = [
            next(r.getMessage() for r in caplog.records if r.name == name)
            for name in (BOXES, AGENT)
        ]
        for told in (by_relay, by_box):
            assert "voice-tunnel-3.msgpack" in told
            assert "the box voice-tunnel-2.msgpack: run the same version on both" in told
        assert by_box.endswith("(tunnel_version)")
        assert (await world.http.get("/tell")).status_code == 201

        caplog.clear()
        said = "this is for boxes, server.py --relay, that speak voice-tunnel-2.msgpack"
        monkeypatch.setattr(f"{BOXES}.Lobby._no_box", lambda *_: Forbidden(said))
        monkeypatch.setattr(f"{BOXES}.SUBPROTOCOLS", {})
        another = Agent(notes, dial(world.port, name="other"))
        another.start()
        await until(lambda: "refuses this box" in caplog.text)
        await another.stop()
        assert (
            "this server voice-tunnel-3.msgpack: upgrade the relay (tunnel_version)" in caplog.text
        )

    play(tmp_path, scenario)


def test_a_name_belongs_to_one_box_at_a_time(tmp_path: Path, caplog: Any) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        second = Agent(Notes(), dial(world.port))
        second.start()
        await until(lambda: "give each its own name" in caplog.text)
        assert not second.is_connected
        assert (await world.http.get("/tell")).status_code == 201
        await world.agent.stop()
        # The first has said goodbye: the name is free.
        await until(lambda: second.is_connected)
        await second.stop()

    play(tmp_path, scenario)


def test_each_box_has_its_own_path(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        other = Notes()
        lab = Agent(other, dial(world.port, name="lab", key="another key of 16"))
        lab.start()
        await until(lambda: lab.is_connected)
        assert (await world.http.get("/boxes/lab/tell?1")).text == "GET /tell?1"
        assert (await world.http.get("/boxes/home/tell?2")).text == "GET /tell?2"
        assert (len(other.seen), len(notes.seen)) == (1, 1)
        assert other.seen[0]["raw_path"] == b"/tell"
        assert (await world.http.get("/boxes/cellar/tell")).status_code == 404
        async with world.socket("/boxes/lab/echo") as socket:
            await socket.send("lab")
            assert await socket.recv() == "lab"
        await lab.stop()

    boxes = "home=what the box and the relay know,lab=another key of 16"
    play(tmp_path, scenario, relay_boxes=boxes)


def test_a_box_that_is_away_is_a_503_that_says_so(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        await world.agent.stop()
        await until(lambda: not world.relay.boxes["home"].is_connected)
        answer = await world.http.get("/tell")
        assert (answer.status_code, answer.json()["code"]) == (503, "tunnel_down")
        assert int(answer.headers["retry-after"]) > 0
        assert "'home' is not connected" in answer.json()["detail"]
        with pytest.raises(InvalidStatus) as caught:
            await world.socket("/echo")
        assert caught.value.response.status_code == 503
        status = (await world.http.get("/api/v1/status")).json()
        assert (status["relay"], status["tunnel_connected"]) == ("ok", False)

    play(tmp_path, scenario)


def test_a_box_that_does_not_answer_is_a_504_and_is_told_that_nobody_waits(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        answer = await world.http.get("/never")
        assert (answer.status_code, answer.json()["code"]) == (504, "tunnel_timeout")
        await until(lambda: notes.gone)

    play(tmp_path, scenario, relay_timeout=0.3)


def test_a_relay_is_trusted_by_its_certificate(tmp_path: Path, caplog: Any) -> None:
    certificate, key = self_signed(tmp_path)
    stranger, _ = self_signed(tmp_path, "stranger")

    async def run() -> None:
        config = relay_config(tmp_path)
        tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        async with served(Relay(config), config, **tls) as port:
            assert await is_trusted(port, certificate)
            assert not await is_trusted(port, stranger)
            assert not await is_trusted(port, None)

    async def is_trusted(port: int, ca: Path | None) -> bool:
        there = dial(port, ca=ca)
        agent = Agent(Notes(), replace(there, url=there.url.replace("ws:", "wss:")))
        caplog.clear()
        agent.start()
        await until(lambda: agent.is_connected or "CERTIFICATE_VERIFY_FAILED" in caplog.text)
        found = agent.is_connected
        await agent.stop()
        return found

    caplog.set_level(logging.INFO)
    asyncio.run(run())


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ("", "NAME=KEY"),
        ("home", "16 characters"),
        ("home=short", "16 characters"),
        ("ho me=0123456789abcdef", "NAME=KEY"),
        ("../x=0123456789abcdef", "NAME=KEY"),
    ],
)
def test_a_list_of_boxes_that_makes_no_sense_is_refused(
    tmp_path: Path, boxes: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Relay(relay_config(tmp_path, relay_boxes=boxes))


@pytest.mark.parametrize(
    "url", ["nonsense", "http://host", "wss://", "wss://host:99999", "wss://host:0", "wss://[x]"]
)
def test_an_address_that_no_relay_can_have_is_refused(url: str) -> None:
    config = load_config(relay=url, relay_key="0123456789abcdef", api_key=API_KEY)
    with pytest.raises(ConfigError, match=r"--relay .* › expected such as wss://relay.example.com"):
        Dial.from_config(config)


def test_a_certificate_that_cannot_be_used_is_refused_before_anything_listens(
    tmp_path: Path,
) -> None:
    certificate, key = self_signed(tmp_path)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for given in (
        {"relay_certificate": tmp_path / "nowhere.pem"},
        {"relay_certificate": garbage, "relay_certificate_key": key},
        {"relay_certificate": certificate},
        # Alone it would be a relay that speaks in the clear.
        {"relay_certificate_key": key},
    ):
        with pytest.raises(ConfigError, match="VOICE_SERVER_RELAY_CERTIFICATE"):
            tls_of(relay_config(tmp_path, **given))
    both = {"relay_certificate": certificate, "relay_certificate_key": key}
    assert tls_of(relay_config(tmp_path, **both)) == (str(certificate), str(key))
    assert tls_of(relay_config(tmp_path)) is None


# -- the store -----------------------------------------------------------------------------------


def test_the_store_follows_the_box_and_fetches_what_differs(tmp_path: Path) -> None:
    prefix = "/api/v1/tts/voices"

    async def scenario(world: World, notes: Notes) -> None:
        store = world.relay.boxes["home"].store
        notes.voices = {"maya": ("d1", b"maya's package"), "nova": ("d2", pattern(300_000))}
        world.agent._voices_changed()
        await until(lambda: len(store.digests) == 2)
        await world.synchronised(notes)  # another by itself would find what is changed below
        assert (await world.http.get(f"{prefix}/nova/package")).content == pattern(300_000)

        notes.served.clear()
        notes.voices["maya"] = ("d3", b"maya's new package")
        del notes.voices["nova"]
        done = (await world.http.post(f"{prefix}/sync")).json()
        assert (done["sent"], done["deleted"]) == (1, 1)
        assert notes.served.count(f"{prefix}/maya/package") == 1
        done = (await world.http.post(f"{prefix}/sync")).json()
        assert (done["sent"], done["deleted"]) == (0, 0)

        await world.agent.stop()
        await until(lambda: not world.relay.boxes["home"].is_connected)
        answer = await world.http.get(f"{prefix}/maya/package")
        assert answer.content == b"maya's new package"
        assert answer.headers["x-served-by"] == "relay"
        assert (await world.http.get(f"{prefix}/nova/package")).status_code == 404
        for wrong in ("..%2f..%2fx", "nova%00", "index.json"):
            assert (await world.http.get(f"{prefix}/{wrong}/package")).status_code in (404, 503)
        bad = {"Authorization": "Bearer wrong"}
        assert (await world.http.get(f"{prefix}/maya/package", headers=bad)).status_code == 401
        # Another relay on the same folder has it too.
        again = Relay(relay_config(tmp_path)).boxes["home"].store
        await again.load()
        assert dict(again.digests) == {"maya": "d3"}

    play(tmp_path, scenario)


def test_a_list_with_ids_that_are_none_is_not_believed(tmp_path: Path, caplog: Any) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        notes.voices = {"../../escape": ("d", b"x")}
        answer = await world.http.post("/api/v1/tts/voices/sync")
        assert answer.status_code == 503
        assert "makes no sense" in answer.json()["detail"]
        assert not list(tmp_path.rglob("*escape*"))

    play(tmp_path, scenario)


def test_for_itself_the_relay_may_ask_for_voices_alone(tmp_path: Path) -> None:
    from voice_server.core.errors import TunnelDown
    from voice_server.relay.forward import fetch
    from voice_server.relay.sync import _scope

    async def scenario(world: World, notes: Notes) -> None:
        endpoint = world.relay.boxes["home"].endpoint()
        for method, path in (("GET", "/keys"), ("DELETE", "/api/v1/tts/voices/maya/package")):
            with pytest.raises(TunnelDown, match="may not ask"):
                await fetch(endpoint, _scope(method, path), deadline=30, max_bytes=10, own=True)
        assert not notes.seen

    play(tmp_path, scenario)
