"""Projects: a name and whatever JSON their owner keeps under it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from voice_server.core.errors import NotFound
from voice_server.storage.database import Database
from voice_server.storage.timestamps import now


class Projects:
    """The projects of one database. Each is a dict of id, name, data, created_at, updated_at."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
        from voice_server.storage.schema import projects as table

        at = now()
        row = {"name": name, "data": dict(data), "created_at": at, "updated_at": at}
        row["id"] = str(uuid.uuid4())
        async with self._database.write() as connection:
            await connection.execute(table.insert(), row)
        return row

    async def get(self, project_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        from sqlalchemy import select

        from voice_server.storage.schema import projects as table

        async with self._database.read() as connection:
            found = await connection.execute(select(table).where(table.c.id == project_id))
            row = found.mappings().first()
        if row is None:
            raise _unknown(project_id)
        return dict(row)

    async def list(self, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """A page, newest first."""
        from sqlalchemy import select

        from voice_server.storage.schema import projects as table

        page = select(table).order_by(table.c.created_at.desc(), table.c.id)
        async with self._database.read() as connection:
            rows = (await connection.execute(page.limit(limit).offset(offset))).mappings().all()
        return [dict(row) for row in rows]

    async def update(self, project_id: str, **changes: Any) -> dict[str, Any]:
        """Change ``name`` or ``data``. Raises NotFound."""
        from voice_server.storage.schema import projects as table

        async with self._database.write() as connection:
            done = await connection.execute(
                table.update().where(table.c.id == project_id).values(**changes, updated_at=now())
            )
        if not done.rowcount:
            raise _unknown(project_id)
        return await self.get(project_id)

    async def delete(self, project_id: str) -> None:
        """Raises NotFound."""
        from voice_server.storage.schema import projects as table

        async with self._database.write() as connection:
            done = await connection.execute(table.delete().where(table.c.id == project_id))
        if not done.rowcount:
            raise _unknown(project_id)


def _unknown(project_id: str) -> NotFound:
    return NotFound(f"Project {project_id[:80]!r} not found", code="unknown_project")
