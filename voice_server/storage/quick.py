"""Reads tables of SQLite's file without SQLAlchemy, whose import takes longer than the server's
whole start.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from voice_server.storage.database import HEAD

Row = Mapping[str, Any]

_JSON = frozenset({"consent", "tags", "notes", "scopes"})


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for any other database, and for one in memory."""
    prefix, _, rest = url.partition(":///")
    if not prefix.startswith("sqlite") or not rest or rest.startswith((":memory:", "file:")):
        return None
    return Path(rest.partition("?")[0])


def read_quickly(url: str, *queries: str) -> list[Sequence[Row]] | None:
    """The rows of each query, in one view of the data; no rows where there is no file yet.

    None when only SQLAlchemy can tell: another database, or tables of another version. Blocking.
    """
    path = sqlite_path(url)
    if path is None:
        return None
    if not path.exists():
        return [[] for _ in queries]
    try:
        # Not read-only: the first to open a file after a crash has its log to put in order.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if version is None or version[0] != HEAD:
                return None
            return [[_parsed(row) for row in connection.execute(query)] for query in queries]
    except sqlite3.Error:
        return None


def _parsed(row: sqlite3.Row) -> Row:
    return {
        name: json.loads(row[name]) if name in _JSON and isinstance(row[name], str) else row[name]
        for name in row.keys()  # noqa: SIM118 - a Row iterates over its values
    }
