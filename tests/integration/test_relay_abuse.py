"""Clients, boxes and boxes' catalogues that do harm, by mistake or on purpose."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.tunnelling import (
    BOX_KEY,
    PATIENCE,
    Notes,
    World,
    dial,
    pattern,
    play,
    relay_config,
    send_all,
    settled,
    until,
)
from voice_server.core.errors import ConfigError
from voice_server.core.tunnel import MAX_FRAME, Link
from voice_server.core.tunnel.handshake import NONE, BoxHandshake
from voice_server.relay import sync
from voice_server.relay.agent import Agent
from voice_server.relay.app import Relay

PREFIX = "/api/v1/tts/voices"


# -- who asks too often --------------------------------------------------------------------------


def test_a_key_and_an_address_that_ask_too_often_are_told_when_to_come_back(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        for _ in range(3):
            assert (await world.http.get("/tell")).status_code == 201
        refused = await world.http.get("/tell")
        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        other = {"Authorization": "Bearer another"}
        assert (await world.http.get("/tell", headers=other)).status_code == 201
        with pytest.raises(InvalidStatus, match="429"):
            async with world.socket("/echo"):
                pass
        for _ in range(5):
            last = await world.http.get("/health")
        assert last.status_code == 200  # which is never counted
        assert (await world.http.get("/tell", headers=other)).status_code == 201
        seen = await world.http.get("/tell", headers=other)
        assert (seen.status_code, "address" in seen.json()["detail"]) == (429, True)
        assert len(notes.seen) == 5

    play(tmp_path, scenario, relay_key_rate="3/hour", relay_address_rate="7/hour")


def test_who_guesses_keys_is_stopped_and_who_has_one_is_not(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        assert (await world.http.get("/judged")).status_code == 200
        statuses = []
        for number in range(6):
            guess = {"Authorization": f"Bearer guess {number}"}
            # What is answered to anybody teaches nothing about a key.
            await world.http.get("/ready", headers=guess)
            statuses.append((await world.http.get("/judged", headers=guess)).status_code)
        assert statuses == [401, 401, 401, 429, 429, 429]
        with pytest.raises(InvalidStatus, match="429"):
            async with world.socket("/echo", additional_headers={"X-API-Key": "guess"}):
                pass
        assert (await world.http.get("/judged")).status_code == 200
        metrics = (await world.http.get("/relay/metrics")).text
        assert 'voice_relay_refused_total{code="rate_limited"}' in metrics
        wrong = {"Authorization": "Bearer guess"}
        assert (await world.http.get("/relay/metrics", headers=wrong)).status_code == 429

    play(tmp_path, scenario, relay_wrong_keys="3/hour")


def test_a_box_that_guesses_does_not_keep_the_right_one_out_for_its_clients(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        stranger = Agent(notes, dial(world.wire.port, key="not the key of the box"))
        stranger.start()
        refused = world.relay._metrics.refused.labels("unauthorized")
        limited = world.relay._metrics.refused.labels("rate_limited")
        await until(lambda: refused._value.get() == 2 and limited._value.get() >= 1)
        await stranger.stop()
        assert (await world.http.get("/tell")).status_code == 201

    play(tmp_path, scenario, relay_wrong_keys="2/hour")


def test_a_rate_that_is_none_names_its_setting(tmp_path: Path) -> None:
    Relay(relay_config(tmp_path, relay_key_rate="off"))
    with pytest.raises(ConfigError, match="relay-wrong-keys › expected such as 60/minute"):
        relay_config(tmp_path, relay_wrong_keys="often")


# -- clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_no_request_makes_a_frame_that_the_box_does_not_take(tmp_path: Path, encoding: Any) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        long = {f"X-{n}": "x" * 8_000 for n in range(9)}
        answer = await world.http.get("/tell", headers=long)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        # As long as may be, many at once: they do not share a frame that is too long for it.
        some = {f"X-{n}": "x" * 8_000 for n in range(8)}
        answers = await asyncio.gather(*(world.http.get("/tell", headers=some) for _ in range(40)))
        assert {answer.status_code for answer in answers} == {201}
        async with world.socket("/echo") as socket:
            await socket.send("\x01" * 262_144)  # six bytes each in JSON
            assert await socket.recv() == "\x01" * 262_144
        assert world.wire.connections == 1

    play(tmp_path, scenario, encoding=encoding)


def test_empty_messages_wait_in_no_greater_number_than_long_ones(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        await world.synchronised(notes)  # so that the only stream is this client's
        async with world.socket("/never_reads", max_queue=None) as socket:
            sending = asyncio.create_task(send_all(socket, "", 200_000))
            [box] = world.relay.boxes.values()
            await until(lambda: notes.seen)
            session = box.endpoint().session
            [number] = session.streams
            await until(lambda: not session.has_room(number))
            waiting = session._streams[number]
            assert await settled(lambda: waiting.pending_bytes) < 2 * 65_536
            assert len(waiting.pending) < 2_500
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            socket.transport.abort()

    play(tmp_path, scenario)


def code_of(closed: ConnectionClosed) -> int | None:
    return None if closed.rcvd is None else closed.rcvd.code


def test_what_a_client_sends_in_pieces_or_wrongly_is_judged_as_ever(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/echo") as socket:
            await socket.send(["in ", "three ", "pieces"])
            assert await socket.recv() == "in three pieces"
            await socket.send([b"\x00", b"\xff"])
            assert await socket.recv() == b"\x00\xff"
            await (await socket.ping())
            # Not UTF-8, in one frame.
            socket.transport.write(b"\x81\x82\x00\x00\x00\x00\xff\xfe")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert code_of(closed.value) == 1007
        async with world.socket("/echo") as socket:
            # Without a mask, which a client must have.
            socket.transport.write(b"\x81\x02no")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert code_of(closed.value) == 1002
        async with world.socket("/echo") as socket:
            # A new message within the fragments of another.
            socket.transport.write(b"\x01\x81\x00\x00\x00\x00a" + b"\x81\x81\x00\x00\x00\x00b")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert code_of(closed.value) == 1002
        async with world.socket("/echo") as socket:
            # Longer than a relay takes of anybody.
            with suppress(ConnectionClosed):
                await socket.send("x" * (MAX_FRAME + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert code_of(closed.value) == 1009
        await until(lambda: len(notes.gone) == 4)
        assert [left["code"] for left in notes.gone] == [1007, 1002, 1002, 1009]
        await until(lambda: not world.relay.boxes["home"].streams)
        assert (await world.http.get("/tell")).status_code == 201
        assert world.wire.connections == 1

    play(tmp_path, scenario)


# -- boxes ---------------------------------------------------------------------------------------


class HostileBox:
    """Says what it likes, sealed as it must be."""

    def __init__(self, socket: Any, link: Link) -> None:
        self.socket, self.link, self.sent = socket, link, 0

    async def say(self, *records: Any) -> None:
        self.sent += 1
        body = {"number": self.sent, "ack": 0, "records": list(records)}
        await self.socket.send(self.link.seal(body))

    async def opened(self, path: str) -> int:
        """The stream of a client who asks for ``path``: the relay may have opened one of its own."""
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
            for record in self.link.open(frame)["records"]:
                if record["type"] == "open" and record["scope"]["path"] == path:
                    return int(record["stream"])


async def intrude(world: World) -> HostileBox:
    await world.agent.stop()
    [box] = world.relay.boxes.values()
    await until(lambda: not box.is_connected)
    url = f"ws://127.0.0.1:{world.port}/tunnel"
    socket = await connect(
        url,
        subprotocols=["voice-tunnel-3.msgpack"],
        compression=None,
        proxy=None,  # type: ignore[list-item]
        open_timeout=PATIENCE,
    )
    handshake = BoxHandshake(b"n" * 32, "home", BOX_KEY, "msgpack")
    await socket.send(handshake.answer(await socket.recv(), NONE, 0))
    _, _, link = handshake.finish(await socket.recv())
    await until(lambda: box.is_connected)
    return HostileBox(socket, link)


@pytest.mark.parametrize(
    "record",
    [
        {"type": "http.response.body", "body": b"", "more_body": True, "junk": "x"},
        {"type": "websocket.send", "bytes": b"x", "text": "y"},
        {"type": "http.response.start", "status": 200, "headers": []},
    ],
    ids=["a field too many", "text and bytes", "a second answer"],
)
def test_a_box_cannot_fill_the_relay_past_the_window(tmp_path: Path, record: Any) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        box = await intrude(world)
        asking = asyncio.create_task(world.http.get("/tell"))
        [home] = world.relay.boxes.values()
        stream = await box.opened("/tell")
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await box.say({**start, "stream": stream})
        await box.say({**record, "stream": stream})
        await asyncio.wait_for(box.socket.wait_closed(), PATIENCE)
        await until(lambda: not home.is_connected)
        home.abandon("enough")
        with pytest.raises(httpx.RemoteProtocolError):
            await asking

    play(tmp_path, scenario)


# -- a catalogue that cannot be followed ---------------------------------------------------------


@pytest.fixture
def told(monkeypatch: Any, caplog: Any) -> Callable[[str], int]:
    """How often the log of the sync, which does not wait here, held a text."""
    monkeypatch.setattr(sync, "_BACKOFF", sync.RestartPolicy(0.01, 0.05, failures=1_000))
    monkeypatch.setattr(sync, "_PAUSE", 0.0)
    caplog.set_level(logging.INFO, sync.__name__)
    return lambda text: sum(
        text in r.getMessage() for r in caplog.records if r.name == sync.__name__
    )


def test_a_sync_that_fails_is_tried_less_and_less_and_told_once(
    tmp_path: Path, told: Callable[[str], int]
) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        [box] = world.relay.boxes.values()
        failures = world.relay._metrics.sync_failures.labels("home")
        notes.voices = {"../../escape": ("d", b"x")}
        world.agent._voices_changed()
        await until(lambda: failures._value.get() == sync._MAX_TRIES)
        assert box.sync.is_failing
        await asyncio.sleep(0.3)
        assert failures._value.get() == sync._MAX_TRIES  # no more is tried
        metrics = (await world.http.get("/relay/metrics")).text
        assert 'voice_relay_sync_failing{box="home"} 1.0' in metrics
        # A new link begins again, and this time it works.
        notes.voices = {"maya": ("d1", b"maya's package")}
        world.wire.cut()
        await until(lambda: set(box.store.digests) == {"maya"})
        await until(lambda: not box.sync.is_failing)

    play(tmp_path, scenario)
    assert told("tried again") == 1
    assert told(f"in {sync._MAX_TRIES} tries") == 1
    assert told("synchronised again") == 1


def test_a_store_that_cannot_be_written_is_told_once(
    tmp_path: Path, told: Callable[[str], int]
) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        folder = tmp_path / "relay" / "relay" / "home"
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("a file in the place of the folder")
        failures = world.relay._metrics.sync_failures.labels("home")
        notes.voices = {"maya": ("d1", b"maya's package")}
        world.agent._voices_changed()
        await until(lambda: failures._value.get() == sync._MAX_TRIES)

    play(tmp_path, scenario)
    assert told("tried again: the relay's store: ") == 1


def test_a_voice_without_a_package_keeps_no_other_from_the_store(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sync, "MAX_PACKAGE_BYTES", 100_000)

    async def scenario(world: World, notes: Notes) -> None:
        [box] = world.relay.boxes.values()
        notes.voices = {"big": ("d1", pattern(300_000)), "maya": ("d2", b"maya's package")}
        world.agent._voices_changed()
        await until(lambda: "maya" in box.store.digests)
        await world.synchronised(notes)  # another by itself would take what is changed below
        asked = notes.served.count(f"{PREFIX}/big/package")
        done = (await world.http.post(f"{PREFIX}/sync")).json()
        assert (done["sent"], set(box.store.digests)) == (0, {"maya"})
        assert notes.served.count(f"{PREFIX}/big/package") == asked == 1
        notes.voices["big"] = ("d3", b"small")
        assert (await world.http.post(f"{PREFIX}/sync")).json()["sent"] == 1

    play(tmp_path, scenario)
