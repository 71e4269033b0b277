"""The relay's copies of a box's packages: how many are kept, and what a crash leaves of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from voice_server.core.errors import RequestError, StorageFull
from voice_server.relay.store import PackageStore
from voice_server.relay.sync import Sync, Synced
from voice_server.storage.atomic import TEMPORARY, write_atomic


class Catalogue(Sync):
    """A synchronisation with a box whose packages are given, by voice."""

    def __init__(self, store: PackageStore, packages: dict[str, bytes]) -> None:
        super().__init__("home", store, lambda: None)
        self.packages = packages
        self.fetched: list[str] = []

    async def _list(self, endpoint: Any) -> dict[str, str]:
        return {name: package.hex() for name, package in self.packages.items()}

    async def _package(self, endpoint: Any, voice_id: str) -> bytes | None:
        self.fetched.append(voice_id)
        return self.packages[voice_id]


def test_a_box_fills_its_own_part_of_the_store_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        store = PackageStore(tmp_path, 10)
        await store.load()
        box = Catalogue(store, {"ada": b"aaaa", "bea": b"bbbb", "cleo": b"cccc", "dora": b"dd"})
        nothing: Any = None
        assert await box.now(nothing) == Synced(fetched=3, deleted=0)
        assert set(store.digests) == {"ada", "bea", "dora"}
        assert "cleo is not kept" in caplog.text
        assert "VOICE_SERVER_RELAY_STORE_MB" in caplog.text
        # What was left out is not fetched again and again, but when there is room.
        assert await box.now(nothing) == Synced(0, 0)
        assert box.fetched.count("cleo") == 1
        del box.packages["ada"]
        assert await box.now(nothing) == Synced(fetched=1, deleted=1)
        assert set(store.digests) == {"bea", "cleo", "dora"}
        # One that has grown over the limit is no longer here as it was.
        box.packages["bea"] = b"b" * 9
        await box.now(nothing)
        assert set(store.digests) == {"cleo", "dora"}
        again = PackageStore(tmp_path, 10)
        await again.load()
        again.check_room("bea", b"bbbb")
        again.check_room("cleo", b"12345678")
        with pytest.raises(StorageFull, match="VOICE_SERVER_RELAY_STORE_MB"):
            again.check_room("bea", b"bbbbb")

    asyncio.run(run())


def test_a_voice_whose_copy_could_not_be_renewed_goes_when_its_box_deletes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        if path.suffix == ".zip":
            raise StorageFull("the disk is full")
        write_atomic(path, data)

    async def run() -> None:
        store = PackageStore(tmp_path, 10)
        await store.load()
        box = Catalogue(store, {"ada": b"aaaa"})
        nothing: Any = None
        await box.now(nothing)
        box.packages["ada"] = b"bbbb"
        with monkeypatch.context() as patch:
            patch.setattr("voice_server.relay.store.write_atomic", refuse)
            with pytest.raises(StorageFull):
                await box.now(nothing)
        assert not store.digests
        box.packages.clear()
        await box.now(nothing)
        assert {path.name for path in tmp_path.iterdir()} == {"index.json"}
        store.check_room("bea", b"0123456789")

    asyncio.run(run())


def test_a_store_that_a_crash_left_in_pieces_is_taken_as_far_as_it_is_whole(
    tmp_path: Path, caplog: Any
) -> None:
    async def run() -> None:
        store = PackageStore(tmp_path, 1 << 20)
        await store.load()
        await store.put("maya", "d1", b"maya")
        await store.put("nova", "d2", b"nova")
        (tmp_path / "nova.voicepkg.zip").unlink()
        (tmp_path / "stray.voicepkg.zip").write_bytes(b"of no index")
        (tmp_path / f"{TEMPORARY}abc").write_bytes(b"half")
        again = PackageStore(tmp_path, 1 << 20)
        await again.load()
        assert dict(again.digests) == {"maya": "d1"}
        assert again.path("maya").read_bytes() == b"maya"
        assert {path.name for path in tmp_path.iterdir()} == {"index.json", "maya.voicepkg.zip"}
        for bad in (b"{", b"[]", b'{"../x": "d"}', b'{"maya": 1}'):
            (tmp_path / "index.json").write_bytes(bad)
            damaged = PackageStore(tmp_path, 1 << 20)
            await damaged.load()
            assert not damaged.digests, bad
        with pytest.raises(RequestError):
            await damaged.put("../escape", "d", b"x")

    asyncio.run(run())
