"""History, projects, uploads and previews on a real disk: kept as long as promised, no longer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stored import WAV, new
from voice_server.core.errors import NotFound, StorageFull
from voice_server.storage import history as history_module
from voice_server.storage import previews as previews_module
from voice_server.storage.database import Database, sqlite_url
from voice_server.storage.history import Filters, Generation, History
from voice_server.storage.previews import Previews
from voice_server.storage.projects import Projects

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[History]:
    database = Database(sqlite_url(folder / "test.db"))
    try:
        yield History(folder / "generations", database)
    finally:
        await database.close()


async def spoken(history: History, text: str = "Hello.", **more: Any) -> Generation:
    values = {"voice_id": "maya", "language": "en", "backend": "tone", "duration": 2.0, "seed": 7}
    return await history.add(WAV, text=text, **{**values, **more})


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# -- history ---------------------------------------------------------------------------------------


async def test_an_entry_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        made = await spoken(history, seed=2**62, text="Größe 50 %_x")
    async with opened(tmp_path) as history:
        assert await history.get(made.id) == made
        assert made.path.read_bytes() == WAV


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("HELLO", 2),
        ("50 %", 1),
        ("%", 1),
        ("_", 1),
        ("nothing", 0),
        ("'; DROP TABLE x", 0),
        ("", 3),
    ],
)
async def test_a_search_takes_its_words_literally(tmp_path: Path, search: str, found: int) -> None:
    async with opened(tmp_path) as history:
        for text in ("Hello there.", "hello again", "50 %_x"):
            await spoken(history, text)
        items, total = await history.find(Filters(search=search))
        assert (len(items), total) == (found, found)


async def test_pages_are_newest_first_and_filters_combine(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        made = [await spoken(history, f"Text {i}", voice_id=f"v{i % 2}") for i in range(6)]
        page, total = await history.find(Filters(), limit=2, offset=1)
        assert [g.id for g in page] == [made[4].id, made[3].id]
        assert total == 6
        page, total = await history.find(Filters(voice_id="v1", search="3", backend="tone"))
        assert [g.id for g in page] == [made[3].id]
        page, total = await history.find(
            Filters(since=made[2].created_at, until=made[4].created_at)
        )
        assert [g.id for g in page] == [made[3].id, made[2].id]
        assert await history.stats() == (6, 12.0, {"v0": 3, "v1": 3})


async def test_of_two_deletes_of_an_entry_one_finds_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        made = await spoken(history)
        results = await asyncio.gather(
            history.delete(made.id), history.delete(made.id), return_exceptions=True
        )
        assert sorted(type(r).__name__ for r in results) == ["NoneType", "NotFound"]
        assert not made.path.exists()


async def test_a_full_disk_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as history:
        await spoken(history)

        def full(*_: object) -> None:
            raise StorageFull("no space left")

        monkeypatch.setattr(history_module, "write_atomic", full)
        with pytest.raises(StorageFull):
            await spoken(history)
        assert (await history.find(Filters()))[1] == 1


async def test_sound_without_its_row_is_removed_once_it_is_old(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        kept = await spoken(history)
        old = history.folder / "00000000-0000-4000-8000-000000000000.wav"
        young = history.folder / "00000000-0000-4000-8000-000000000001.wav"
        foreign = history.folder / "mine.wav"
        for path in (old, young, foreign):
            path.touch()
        for path in (old, foreign, kept.path):
            aged(path, 1_000)
        assert await history.reconcile(time.time() - 100) == 1
        assert sorted(history.folder.iterdir()) == sorted([kept.path, young, foreign])


async def test_a_database_without_entries_costs_no_sound(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.folder.mkdir(parents=True)
        old = history.folder / "00000000-0000-4000-8000-000000000000.wav"
        old.touch()
        aged(old, 1_000)
        assert await history.reconcile(time.time() - 100) == 0
        assert old.exists()


# -- projects --------------------------------------------------------------------------------------


async def test_a_project_is_kept_changed_and_deleted(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "test.db"))
    projects = Projects(database)
    made = await projects.create("Podcast", {"tracks": [{"at": 1.5}]})
    assert await projects.get(made["id"]) == made
    changed = await projects.update(made["id"], data={})
    assert (changed["name"], changed["data"]) == ("Podcast", {})
    assert [p["id"] for p in await projects.list()] == [made["id"]]
    await projects.delete(made["id"])
    for attempt in (projects.get("x"), projects.update("x", name="y"), projects.delete(made["id"])):
        with pytest.raises(NotFound):
            await attempt
    await database.close()


# -- uploads and previews --------------------------------------------------------------------------


def test_a_session_gives_back_what_was_uploaded_also_after_a_restart(tmp_path: Path) -> None:
    session = Previews(tmp_path).open_session(new(transcript="Grüße"))
    again = Previews(tmp_path).session(session.id)
    assert again == session
    sample = again.sample()
    assert (sample.wav, sample.original, sample.transcript) == (WAV, b"as given", "Grüße")
    assert sample.id != new().id


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", "A", None, 7, {}, "x" * 65, "missing"])
def test_what_is_no_session_is_not_found(tmp_path: Path, bad: object) -> None:
    with pytest.raises(NotFound, match="upload again"):
        Previews(tmp_path).session(bad)


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", "A", "missing"])
def test_what_is_no_preview_is_not_found(tmp_path: Path, bad: str) -> None:
    with pytest.raises(NotFound, match="20 minutes"):
        Previews(tmp_path).preview(bad)


def test_what_was_kept_long_enough_goes_and_the_rest_stays(tmp_path: Path) -> None:
    previews = Previews(tmp_path, upload_retention=100, preview_retention=10)
    old, young = previews.open_session(new()), previews.open_session(new())
    stale, fresh = previews.add_preview(WAV), previews.add_preview(WAV)
    aged(old.folder, 101)
    aged(previews.preview(stale), 11)
    (tmp_path / "uploads" / ".tmp-half").mkdir()
    assert previews.sweep() == 2
    assert previews.session(young.id)
    assert previews.preview(fresh).read_bytes() == WAV
    for gone in (lambda: previews.session(old.id), lambda: previews.preview(stale)):
        with pytest.raises(NotFound):
            gone()
    aged(tmp_path / "uploads" / ".tmp-half", 700)
    assert previews.sweep() == 1


def test_a_session_in_use_is_never_taken(tmp_path: Path) -> None:
    previews = Previews(tmp_path, upload_retention=10)
    session = previews.open_session(new())
    aged(session.folder, 1_000)
    with previews.pinned(session.id), previews.pinned(session.id):
        assert previews.sweep() == 0
        previews.close_session(session.id)
        assert previews.session(session.id)
    assert previews.sweep() == 1


def test_a_full_disk_leaves_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = previews_module.write_atomic

    def full(path: Path, data: bytes) -> None:
        if path.name == "session.json":
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(previews_module, "write_atomic", full)
    with pytest.raises(StorageFull):
        Previews(tmp_path).open_session(new())
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_damaged_session_is_none(tmp_path: Path) -> None:
    previews = Previews(tmp_path)
    session = previews.open_session(new())
    for damage in ("", "[]", '{"id": 1}', '{"notes": 3}'):
        (session.folder / "session.json").write_text(damage)
        with pytest.raises(NotFound):
            previews.session(session.id)


def test_a_session_that_somebody_else_saved_meanwhile_is_not_found(tmp_path: Path) -> None:
    previews = Previews(tmp_path)
    session = previews.open_session(new())
    previews.close_session(session.id)
    with pytest.raises(NotFound, match="upload again"):
        session.sample()
