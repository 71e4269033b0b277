"""Opens the database: SQLite in WAL mode, or whatever a SQLAlchemy URL names.

SQLAlchemy takes half a second to import, so it is imported when the database is first needed,
in a thread. One writes at a time (``group_commit``): SQLite has one writer, and older versions can
damage a WAL that several connections reset at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voice_server.core.errors import ConfigError, VoiceServerError
from voice_server.storage.group_commit import GroupCommit, is_full, storage_full

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voice_server.config import Settings

logger = logging.getLogger(__name__)

HEAD = "0001"
"""The migration that the tables of schema.py correspond to."""

MIGRATIONS = Path(__file__).with_name("migrations")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file. Raises ConfigError for one that no URL can name."""
    if "?" in str(path):
        raise ConfigError(f"a database cannot lie in a folder with ? in its name: {path}")
    return f"sqlite+aiosqlite:///{path}"


def database_of(settings: Settings) -> Database:
    """The database that the settings name; nothing is opened yet."""
    url = settings.database_url
    if url:
        return Database(url.get_secret_value())
    # Absolute, because the working directory may change.
    return Database(sqlite_url(settings.data_dir.absolute() / "voice_server.db"))


class Database:
    """One database. ``read`` and ``write`` open it if that has not happened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: AsyncEngine | None = None
        self._opening = asyncio.Lock()
        self._writer = GroupCommit()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read from."""
        engine = await self.open()
        async with engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, undone by an exception. Raises StorageFull."""
        engine = await self.open()
        async with self._writer.write(engine) as connection:
            yield connection

    async def open(self) -> AsyncEngine:
        """Import, connect, create or migrate the tables. Raises ConfigError, StorageFull."""
        if self._engine is None:
            async with self._opening:
                if self._engine is None:
                    self._engine = await self._open()
        return self._engine

    async def check(self) -> None:
        """See whether it could be opened, and make nothing. Raises ConfigError."""
        async with self._new_engine() as engine:
            if (file := _file_of(engine)) is not None and not file.exists():
                _check_place(file)
            else:
                async with engine.connect() as connection:
                    await connection.run_sync(_check_version)
            await engine.dispose()

    async def close(self) -> None:
        """Close every connection; a later ``read`` opens it again."""
        await self._writer.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def _open(self) -> AsyncEngine:
        async with self._new_engine() as engine, engine.begin() as connection:
            await connection.run_sync(_migrate)
        return engine

    @asynccontextmanager
    async def _new_engine(self) -> AsyncIterator[AsyncEngine]:
        """For who opens it. A failure meanwhile disposes of it, and is told in words for people."""
        try:
            engine = await asyncio.to_thread(_engine, self.url)
        except (ImportError, ValueError) as exc:
            raise ConfigError(
                "database_url › expected a SQLAlchemy URL whose asyncio driver is installed, such "
                f"as postgresql+asyncpg://USER@HOST/NAME with asyncpg: {exc}"
            ) from exc
        try:
            yield engine
        except BaseException as exc:
            await engine.dispose()
            refusal = _refusal(exc, engine)
            if refusal is None:
                raise
            raise refusal from exc


def _file_of(engine: AsyncEngine) -> Path | None:
    """Where a SQLite database lies; None for another, and for one in memory."""
    name = engine.url.database
    is_file = engine.dialect.name == "sqlite" and name and not name.startswith((":", "file:"))
    return Path(name) if is_file and name else None


def _check_place(file: Path) -> None:
    """Whether a file can be made there, with its folders. Raises OSError."""
    folder = next(folder for folder in file.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written")


def _refusal(exc: BaseException, engine: AsyncEngine) -> VoiceServerError | None:
    """What the failure to open a database means for people; None if that is said already."""
    from sqlalchemy.exc import DBAPIError

    if is_full(exc):
        return storage_full()
    if not isinstance(exc, DBAPIError | OSError):
        return None
    return ConfigError(
        f"database_url › {engine.url.render_as_string()} cannot be opened: "
        f"{exc.orig if isinstance(exc, DBAPIError) else exc}; repair it, or name another"
    )


def _engine(url: str) -> AsyncEngine:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, InvalidRequestError
    from sqlalchemy.ext.asyncio import create_async_engine

    try:
        engine = create_async_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, InvalidRequestError) as exc:
        raise ValueError(str(exc)) from exc

    if engine.dialect.name == "sqlite":
        if engine.url.database in (None, "", ":memory:"):
            # All would share one connection, and so one transaction.
            raise ConfigError(
                f"database_url › {url} is in memory, where nothing can be kept; name a file, such "
                "as sqlite+aiosqlite:////srv/voices.db"
            )

        @sqlalchemy.event.listens_for(engine.sync_engine, "connect")
        def _pragmas(connection: Any, _record: object) -> None:
            # The driver begins transactions at some statements and not at others, savepoints among
            # those: we begin them.
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in (
                "journal_mode=WAL",
                # What was acknowledged survives a power cut.
                "synchronous=FULL",
                "foreign_keys=ON",
                "busy_timeout=10000",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @sqlalchemy.event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: Any) -> None:
            # A writer that only reads at first would be refused, not made to wait, if another
            # process wrote in between.
            is_writer = connection.get_execution_options().get("is_writer")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def _version(connection: Any, tables: Collection[str]) -> str | None:
    """The migration that the database is at; None for a new one."""
    import sqlalchemy

    if "alembic_version" not in tables:
        return None
    query = sqlalchemy.text("SELECT version_num FROM alembic_version")
    version: str | None = connection.scalar(query)
    return version


def _check_version(connection: Any) -> None:
    """Raises ConfigError for a database that is newer than this server."""
    import sqlalchemy

    version = _version(connection, sqlalchemy.inspect(connection).get_table_names())
    known = {path.name[1:].partition("_")[0] for path in MIGRATIONS.glob("versions/m*.py")}
    if version is not None and version not in known:
        raise _newer(version)


def _newer(version: str | None) -> ConfigError:
    return ConfigError(
        f"the database is of version {version!r}, which this server does not know; "
        "use the server that wrote it, or another database_url"
    )


def _migrate(connection: Any) -> None:
    """Bring the tables to HEAD. A new database gets them at once, without alembic's import."""
    import sqlalchemy

    from voice_server.storage import schema

    tables = set(sqlalchemy.inspect(connection).get_table_names())
    version = _version(connection, tables)
    if version == HEAD:
        return
    if not tables:
        schema.metadata.create_all(connection)
        connection.execute(
            sqlalchemy.text(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
            )
        )
        connection.execute(
            sqlalchemy.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD}
        )
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    logger.info("migrating the database from %s to %s", version, HEAD)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise _newer(version) from exc
