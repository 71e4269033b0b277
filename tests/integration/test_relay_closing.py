"""How a WebSocket through the relay ends: both sides close it, or its client is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.tunnelling import PATIENCE, Notes, World, play, send_all, until
from voice_server.relay.wire import ServerWire


def test_how_a_client_took_the_close_is_told_to_the_application(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        notes.served.append("close")
        async with world.socket("/closes") as socket:
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (4000, "enough")
        await until(lambda: notes.gone)
        with pytest.raises(InvalidStatus, match="403"):
            await world.socket("/closes?refused")
        await until(lambda: len(notes.gone) == 2)
        assert [left["code"] for left in notes.gone] == [1000, 1006]
        await until(lambda: not world.relay.boxes["home"].streams)

    play(tmp_path, scenario)


def test_a_client_that_vanishes_behind_the_close_has_not_answered_it(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/closes") as socket:
            socket.transport.pause_reading()  # the close comes, and nobody answers
            notes.served.append("close")
            await until(lambda: notes.closed)
            assert not notes.gone
            socket.transport.abort()
        await until(lambda: notes.gone)
        assert notes.gone == [{"type": "websocket.disconnect", "code": 1005}]
        await until(lambda: not world.relay.boxes["home"].streams)

    play(tmp_path, scenario)


def test_a_client_that_never_answers_the_close_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ServerWire.__init__

    def impatient(wire: ServerWire, *args: Any, **options: Any) -> None:
        made(wire, *args, **options)
        wire.close_timeout = 0.3

    monkeypatch.setattr(ServerWire, "__init__", impatient)

    async def scenario(world: World, notes: Notes) -> None:
        async with world.socket("/closes") as socket:
            socket.transport.pause_reading()
            notes.served.append("close")
            await until(lambda: notes.gone)
            assert notes.gone[0]["code"] in (1005, 1006)
            assert "reason" not in notes.gone[0]
            await until(lambda: not world.relay.boxes["home"].streams)
            socket.transport.abort()

    play(tmp_path, scenario)


def test_a_goodbye_behind_a_flood_is_heard_when_the_box_has_closed(tmp_path: Path) -> None:
    async def scenario(world: World, notes: Notes) -> None:
        await world.synchronised(notes)  # so that the only stream is this client's
        # All of it is sent, as far as the client knows, before anybody reads it.
        whole: Any = {"write_limit": 1 << 24, "close_timeout": PATIENCE}
        async with world.socket("/closes", **whole) as socket:
            # Nobody reads it, so that the relay takes no more of it; the goodbye is at its end.
            await send_all(socket, bytes(8_192), 300)
            closing = asyncio.create_task(socket.close(1000))
            session = world.relay.boxes["home"].endpoint().session
            [number] = session.streams
            await until(lambda: not session.has_room(number))
            notes.served.append("close")
            await closing
        await until(lambda: notes.gone)
        assert notes.gone[0]["code"] == 1000
        await until(lambda: not world.relay.boxes["home"].streams)
        assert not session.streams
        await until(lambda: not world.agent._endpoint.session.streams)

    play(tmp_path, scenario)
