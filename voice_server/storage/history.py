"""What was spoken for keeps: rows to search, WAV files beside them.

generations/<id>.wav    written before its row, removed after it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voice_server.core.errors import NotFound
from voice_server.storage.atomic import TEMPORARY, full_disk_told, write_atomic
from voice_server.storage.database import Database
from voice_server.storage.timestamps import now

_FILE = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.wav")


@dataclass(frozen=True, slots=True)
class Generation:
    """One entry. ``duration`` in seconds; ``path`` is its WAV, mono 24 kHz."""

    id: str
    voice_id: str
    text: str
    language: str
    backend: str
    duration: float
    seed: int | None
    created_at: str
    path: Path


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries: of one voice, with a text in theirs (whatever its case), in a span of time."""

    voice_id: str | None = None
    search: str | None = None
    backend: str | None = None
    since: str | None = None
    until: str | None = None


class History:
    """The history of one data folder."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database

    async def add(
        self,
        wav: bytes,
        *,
        voice_id: str,
        text: str,
        language: str,
        backend: str,
        duration: float,
        seed: int | None,
    ) -> Generation:
        """Keep the sound and what it says. Raises StorageFull; then nothing is left of it."""
        return await asyncio.shield(
            self._add(
                wav,
                {
                    "id": str(uuid.uuid4()),
                    "voice_id": voice_id,
                    "text": text,
                    "language": language,
                    "backend": backend,
                    "duration": duration,
                    "seed": seed,
                    "created_at": now(),
                },
            )
        )

    async def get(self, generation_id: str) -> Generation:
        """Raises NotFound."""
        from sqlalchemy import select

        from voice_server.storage.schema import generations as table

        async with self._database.read() as connection:
            found = await connection.execute(select(table).where(table.c.id == generation_id))
            row = found.mappings().first()
        if row is None:
            raise NotFound(
                f"Generation {generation_id[:80]!r} not found; GET /history lists them",
                code="unknown_generation",
            )
        return self._generation(dict(row))

    async def find(
        self, filters: Filters, limit: int = 50, offset: int = 0
    ) -> tuple[list[Generation], int]:
        """A page, newest first, and how many there are in all."""
        from sqlalchemy import func, select

        from voice_server.storage.schema import generations as table

        where = _conditions(filters)
        page = (
            select(table)
            .where(*where)
            .order_by(table.c.created_at.desc(), table.c.id)
            .limit(limit)
            .offset(offset)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(page)).mappings().all()
            total = await connection.scalar(select(func.count()).select_from(table).where(*where))
        return [self._generation(dict(row)) for row in rows], int(total or 0)

    async def delete(self, generation_id: str) -> None:
        """Remove the row, then the sound. Raises NotFound."""
        await asyncio.shield(self._delete(generation_id))

    async def stats(self) -> tuple[int, float, dict[str, int]]:
        """How many there are, their seconds together, and how many each voice spoke."""
        from sqlalchemy import func, select

        from voice_server.storage.schema import generations as table

        grouped = select(
            table.c.voice_id, func.count(), func.coalesce(func.sum(table.c.duration), 0.0)
        ).group_by(table.c.voice_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(grouped)).all()
        by_voice = {voice_id: count for voice_id, count, _ in rows}
        return sum(by_voice.values()), float(sum(row[2] for row in rows)), by_voice

    async def reconcile(self, started: float) -> int:
        """Remove sound that a crash left without its row, if it is older than ``started``; none
        where there are no rows at all: the database may be another one, or a lost one.
        """
        files = await asyncio.to_thread(self._files, started)
        if not files:
            return 0
        from sqlalchemy import select

        from voice_server.storage.schema import generations as table

        async with self._database.read() as connection:
            known = set((await connection.execute(select(table.c.id))).scalars())
        if not known:
            return 0
        stray = [path for generation_id, path in files if generation_id not in known]
        for path in stray:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return len(stray)

    async def _add(self, wav: bytes, row: dict[str, Any]) -> Generation:
        from voice_server.storage.schema import generations as table

        generation = self._generation(row)
        with full_disk_told("the generation"):
            await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(write_atomic, generation.path, wav)
        try:
            async with self._database.write() as connection:
                await connection.execute(table.insert(), row)
        except BaseException:
            await asyncio.to_thread(generation.path.unlink, missing_ok=True)
            raise
        return generation

    async def _delete(self, generation_id: str) -> None:
        from voice_server.storage.schema import generations as table

        generation = await self.get(generation_id)
        async with self._database.write() as connection:
            gone = await connection.execute(table.delete().where(table.c.id == generation_id))
        if not gone.rowcount:
            raise NotFound(
                f"Generation {generation_id[:80]!r} not found", code="unknown_generation"
            )
        await asyncio.to_thread(generation.path.unlink, missing_ok=True)

    def _generation(self, row: Mapping[str, Any]) -> Generation:
        # The id is ours, from the row: never a path that a request brought.
        return Generation(**row, path=self.folder / f"{row['id']}.wav")

    def _files(self, started: float) -> list[tuple[str, Path]]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime >= started:
                    continue
                if entry.name.startswith(TEMPORARY):
                    found.append(("", Path(entry.path)))
                elif match := _FILE.fullmatch(entry.name):
                    found.append((match[1], Path(entry.path)))
        return found


def _conditions(filters: Filters) -> list[Any]:
    from sqlalchemy import func

    from voice_server.storage.schema import generations as table

    where: list[Any] = []
    if filters.voice_id is not None:
        where.append(table.c.voice_id == filters.voice_id)
    if filters.backend is not None:
        where.append(table.c.backend == filters.backend)
    if filters.search:
        where.append(func.lower(table.c.text).contains(filters.search.lower(), autoescape=True))
    if filters.since is not None:
        where.append(table.c.created_at >= filters.since)
    if filters.until is not None:
        where.append(table.c.created_at < filters.until)
    return where
