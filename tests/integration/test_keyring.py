"""The keys in memory while the database is read again: none comes back, none is forgotten."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from voice_server.storage import keyring as module
from voice_server.storage.database import Database, sqlite_url
from voice_server.storage.keyring import Keyring

pytestmark = pytest.mark.anyio


async def test_a_change_during_a_reading_is_not_undone_by_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, was_read, go_on = module.read_quickly, threading.Event(), threading.Event()

    def slowly(*args: str) -> Any:
        rows = read(*args)
        was_read.set()
        assert go_on.wait(60)
        return rows

    database = Database(sqlite_url(tmp_path / "keys.db"))
    keyring = Keyring(database)
    old, revoked = await keyring.create("old")
    monkeypatch.setattr(module, "read_quickly", slowly)
    loading = asyncio.create_task(keyring.load())
    assert await asyncio.to_thread(was_read.wait, 60)
    changes = [
        asyncio.create_task(keyring.revoke(revoked.id)),
        asyncio.create_task(keyring.create("new")),
    ]
    # Long enough for both to be done, if nothing holds them back.
    await asyncio.wait(changes, timeout=1)
    go_on.set()
    await asyncio.wait_for(asyncio.gather(loading, *changes), 60)
    assert keyring.find(old.encode()) is None
    assert [key.name for key in keyring.all()] == ["new"]
    await database.close()
