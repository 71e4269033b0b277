"""The same catalogue, history, projects and keys on every database that is installed here."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import postgresql
from tests.stored import WAV, new, voice
from voice_server.core.errors import ConfigError, Conflict, NotFound
from voice_server.storage import database as database_module
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.database import HEAD, Database, sqlite_url
from voice_server.storage.history import Filters, History
from voice_server.storage.keyring import Keyring
from voice_server.storage.projects import Projects

pytestmark = pytest.mark.anyio

KINDS = ["sqlite", *(["postgresql"] if postgresql.is_available() else [])]


@pytest.fixture(params=KINDS, scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path_factory.mktemp("sqlite") / "all.db")
    else:
        with postgresql.running() as address:
            yield address


async def test_voices_come_back_after_a_restart(url: str, tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, database=Database(url))
    await catalogue.load()
    odd = "Ünïcode 声 'quote\" \\ %s; DROP TABLE voices --"
    await catalogue.create(voice("maya", odd, description=odd), [new("a", odd), new("b", None)])
    await catalogue.create(voice("bare"))
    await catalogue.add_sample("maya", new("c"))
    await catalogue.remove_sample("a")
    changed = await catalogue.update("maya", tags=("x", odd), consent=None)
    await catalogue.replace(voice("bare", "Replaced"), [new("d")])
    with pytest.raises(Conflict):
        await catalogue.create(voice("maya"))
    results = await asyncio.gather(
        *(catalogue.create(voice(f"v{i}"), [new(f"s{i}")]) for i in range(20))
    )
    await catalogue.close()
    again = Catalogue(tmp_path, database=Database(url))
    await again.load()
    assert again.get("maya") == changed
    assert [s.id for s in again.get("maya").samples] == ["b", "c"]
    assert again.get("bare").samples[0].id == "d"
    assert all(again.get(made.id) == made for made in results)
    for one in list(again.voices()):
        await again.delete(one.id)
    await again.close()
    empty = Catalogue(tmp_path, database=Database(url))
    await empty.load()
    assert len(empty) == 0
    await empty.close()


async def test_two_processes_change_one_voice_at_once_and_nothing_is_lost(
    url: str, tmp_path: Path
) -> None:
    here, there = (Catalogue(tmp_path, database=Database(url)) for _ in range(2))
    await here.load()
    await here.create(voice("shared"))
    await there.load()
    for i in range(5):
        await asyncio.gather(
            here.add_sample("shared", new(f"here{i}")),
            there.add_sample("shared", new(f"there{i}")),
            here.update("shared", description=f"{i}"),
            there.update("shared", language="de"),
        )
    await here.refresh()
    assert len(here.get("shared").samples) == 10
    assert (here.get("shared").description, here.get("shared").language) == ("4", "de")
    await here.delete("shared")
    for catalogue in (here, there):
        await catalogue.close()


async def test_history_is_searched_and_counted(url: str, tmp_path: Path) -> None:
    database = Database(url)
    history = History(tmp_path, database)
    for i, text in enumerate(("Größe", "GRÖSSE 50 %", "other_x")):
        await history.add(
            WAV, voice_id=f"v{i % 2}", text=text, language="de", backend="tone", duration=1.5,
            seed=2**62 if i else None,
        )  # fmt: skip
    assert (await history.find(Filters(search="50 %")))[1] == 1
    assert (await history.find(Filters(search="%")))[1] == 1
    assert (await history.find(Filters(search="other_")))[1] == 1
    page, total = await history.find(Filters(voice_id="v0"), limit=1)
    assert (len(page), total) == (1, 2)
    assert page[0].text == "other_x"
    assert await history.stats() == (3, 4.5, {"v0": 2, "v1": 1})
    for entry in (await history.find(Filters()))[0]:
        await history.delete(entry.id)
    with pytest.raises(NotFound):
        await history.delete("nothing")
    await database.close()


async def test_projects_and_keys_are_kept(url: str) -> None:
    database = Database(url)
    projects, keyring = Projects(database), Keyring(database)
    made = await projects.create("Podcast", {"deep": [{"a": 1.5, "b": None}], "ü": "声"})
    assert await projects.get(made["id"]) == made
    assert (await projects.update(made["id"], data={}))["data"] == {}
    await projects.delete(made["id"])
    secret, key = await keyring.create("me", ["speak", "voices"], "5/minute")
    other = Keyring(Database(url))
    await other.load()
    assert other.find(secret.encode()) == key
    await keyring.revoke(key.id)
    await other.load()
    assert other.find(secret.encode()) is None
    await database.close()
    await other._database.close()


async def test_the_tables_are_those_of_the_migrations(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import text

    from voice_server.storage.schema import metadata

    database = Database(url)
    async with database.read() as connection:
        assert (await connection.scalar(text("SELECT version_num FROM alembic_version"))) == HEAD
        different = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    assert different == []
    await database.close()


async def test_the_migrations_make_the_same_tables_and_take_them_away(url: str) -> None:
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection, inspect

    from voice_server.storage.schema import metadata

    def up_and_down(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(database_module.MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert not {table.name for table in metadata.sorted_tables} & set(
            inspect(connection).get_table_names()
        )
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    database = Database(url)
    async with database.write() as connection:
        await connection.run_sync(up_and_down)
    await database.close()


@pytest.mark.parametrize("url", ["sqlite:///voices.db", "nonsense", "nosuch://host/voices"])
async def test_an_address_that_no_asyncio_driver_reads_is_a_mistake_of_the_settings(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match="database_url › expected a SQLAlchemy URL whose"):
        await Database(url).open()


async def test_voices_are_equal_whichever_database_holds_them(url: str, tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, database=Database(url))
    await catalogue.load()
    made = await catalogue.create(voice(), [new()])
    assert dataclasses.replace(made, created_at="", updated_at="", samples=()) == voice()
    await catalogue.delete("maya")
    await catalogue.close()
