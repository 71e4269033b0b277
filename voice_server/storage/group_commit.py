"""Lets writers that come at once share one commit, and so one fsync.

    first writer ─► BEGIN … ──────────────────────┐
    those who queued meanwhile ─► SAVEPOINT … ────┼─► COMMIT ─► all are told
    those who come later ─────────────────────────┴─► the next group

Nobody waits for company: the commit stands in line behind those who are in line already. A writer
that fails is undone alone; a disk that fails undoes the group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from voice_server.core.errors import StorageFull

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction


class _Group:
    """Writers on one open transaction. ``error`` is why it was undone, once it is ``over``."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.over = asyncio.Event()
        self.error: BaseException | None = None

    async def end(self, error: BaseException | None = None) -> None:
        """Commit, or undo all of it because of ``error``."""
        try:
            if error is None:
                await self.connection.commit()
            else:
                await self.connection.rollback()
        except Exception as exc:
            error = error or exc
            # SQLite leaves a transaction open whose commit it refused.
            await self.connection.invalidate()
        finally:
            self.error = error
            self.over.set()
            await self.connection.close()


class GroupCommit:
    """The one writer of a database; SQLite has no more."""

    def __init__(self) -> None:
        # asyncio's lock is fair: who asks for it first has it first.
        self._turn = asyncio.Lock()
        self._group: _Group | None = None
        self._committing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def write(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection; committed when this ends, undone by an exception. Raises StorageFull."""
        async with self._turn:
            is_first = self._group is None
            group = await self._joined(engine)
            # With the first, all that there is can be undone.
            savepoint = None if is_first else await group.connection.begin_nested()
            try:
                yield group.connection
            except BaseException as exc:
                if savepoint is None or not await _is_undone(savepoint):
                    # Without its savepoint, SQLite has undone the others' work as well.
                    self._group = None
                    await group.end(exc)
                if is_full(exc):
                    raise storage_full() from exc
                raise
            if savepoint is not None:
                await savepoint.commit()
        await group.over.wait()
        if group.error is not None:
            if is_full(group.error):
                raise storage_full() from group.error
            raise group.error

    async def close(self) -> None:
        """Let the last group give its connection back."""
        await asyncio.gather(*self._committing)

    async def _joined(self, engine: AsyncEngine) -> _Group:
        if self._group is None:
            connection = await engine.connect()
            self._group = _Group(await connection.execution_options(is_writer=True))
            task = asyncio.create_task(self._commit(self._group))
            self._committing.add(task)
            task.add_done_callback(self._committing.discard)
        return self._group

    async def _commit(self, group: _Group) -> None:
        async with self._turn:
            if self._group is group:
                self._group = None
                await group.end()


async def _is_undone(savepoint: AsyncTransaction) -> bool:
    """Undo what came after the savepoint; False when it is not there any more."""
    try:
        await savepoint.rollback()
    except Exception:
        return False
    return True


def storage_full() -> StorageFull:
    """What a database whose disk ``is_full`` means for who asked."""
    return StorageFull(
        "the database could not be written: the disk is full or failing; "
        "free some space under the data folder and try again"
    )


def is_full(exc: BaseException) -> bool:
    """Whether a database says that its disk is full or failing."""
    said = str(exc).lower()
    return any(
        words in said for words in ("disk is full", "disk i/o error", "no space left on device")
    )
