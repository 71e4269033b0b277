"""Writers that come at once share a commit; what each is told is what is on the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import sqlalchemy

from voice_server.storage.database import Database, sqlite_url

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Database, list[int]]]:
    """A database with two tables, and one entry for each commit from now on."""
    database = Database(sqlite_url(folder / "test.db"))
    async with database.write() as connection:
        await connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        await connection.exec_driver_sql(
            "CREATE TABLE owned (n INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)"
        )
    commits: list[int] = []
    engine = (await database.open()).sync_engine
    sqlalchemy.event.listen(engine, "commit", lambda _: commits.append(1))
    try:
        yield database, commits
    finally:
        await database.close()


async def put(database: Database, *numbers: int, table: str = "numbers") -> None:
    async with database.write() as connection:
        for number in numbers:
            await connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({number})")
            await asyncio.sleep(0)


def stored(folder: Path) -> list[int]:
    """What another process sees."""
    with closing(sqlite3.connect(folder / "test.db")) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]


async def test_those_who_come_at_once_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as (database, commits):
        await asyncio.gather(*(put(database, n) for n in range(50)))
        assert stored(tmp_path) == list(range(50))
        assert len(commits) <= 2
        # Who is told has been stored: one after the other, each is there at once.
        for n in range(50, 53):
            await put(database, n)
            assert stored(tmp_path)[-1] == n


async def test_who_fails_is_undone_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (database, commits):
        # Each of the second kind writes a number of its own before it meets one that is taken.
        writers = [put(database, n) for n in range(10)]
        writers += [put(database, 100 + n, n) for n in range(10)]
        told = await asyncio.gather(*writers, return_exceptions=True)
        assert told[:10] == [None] * 10
        assert all(isinstance(t, sqlalchemy.exc.IntegrityError) for t in told[10:])
        assert stored(tmp_path) == list(range(10))
        assert len(commits) <= 2


async def test_a_commit_that_fails_is_told_to_all_of_its_writers(tmp_path: Path) -> None:
    async with opened(tmp_path) as (database, _):
        # The reference is checked at the commit, and refers to nothing.
        writers = [put(database, 1), put(database, 99, table="owned"), put(database, 2)]
        told = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(t, sqlalchemy.exc.IntegrityError) for t in told), told
        assert stored(tmp_path) == []
        await put(database, 3)
        assert stored(tmp_path) == [3]


async def test_who_goes_away_leaves_nobody_waiting_and_nobody_deceived(tmp_path: Path) -> None:
    """A driver that is interrupted gives up its connection: the group may fail, and is told so."""
    async with opened(tmp_path) as (database, _):
        for steps in range(30):
            start = steps * 10
            tasks = [asyncio.create_task(put(database, start + n)) for n in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[steps % 3].cancel()
            told = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
            kept = {start + n for n, t in enumerate(told) if t is None}
            assert kept <= set(stored(tmp_path))
        await put(database, 9_999)
        assert 9_999 in stored(tmp_path)


async def test_a_writer_waits_for_another_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as (database, _):
        with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO numbers VALUES (1)")
            writing = asyncio.create_task(put(database, 2))
            await asyncio.sleep(0.05)
            assert not writing.done()
            other.execute("COMMIT")
        await asyncio.wait_for(writing, 60)
        assert stored(tmp_path) == [1, 2]
