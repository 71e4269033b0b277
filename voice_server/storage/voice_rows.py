"""Voices as rows of the database, and back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voice_server.core.errors import Conflict, UnknownVoice
from voice_server.core.voices import Sample, Voice
from voice_server.storage.database import Database
from voice_server.storage.quick import Row, read_quickly
from voice_server.storage.timestamps import now
from voice_server.storage.voice_files import VoiceFiles

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_VOICE_FIELDS = tuple(f.name for f in fields(Voice) if f.name not in ("samples", "backend"))
_SAMPLE_FIELDS = tuple(f.name for f in fields(Sample) if f.name not in ("path", "original"))


def voice_row(voice: Voice) -> dict[str, Any]:
    """The row of the table ``voices``."""
    row = {name: getattr(voice, name) for name in _VOICE_FIELDS}
    row["tags"] = list(voice.tags)
    row["consent"] = dict(voice.consent) if voice.consent is not None else None
    return row


def sample_row(voice_id: str, position: int, sample: Sample) -> dict[str, Any]:
    """The row of the table ``samples``."""
    row = {name: getattr(sample, name) for name in _SAMPLE_FIELDS}
    row |= {"voice_id": voice_id, "position": position, "notes": list(sample.notes)}
    row["original"] = Path(sample.original).name if sample.original else ""
    return row


async def insert(connection: AsyncConnection, voice: Voice) -> None:
    """Write a voice that is not there, with its samples. Raises Conflict."""
    from sqlalchemy.exc import IntegrityError

    from voice_server.storage import schema

    try:
        await connection.execute(schema.voices.insert(), voice_row(voice))
    except IntegrityError as exc:
        raise Conflict(
            f"voice {voice.id!r} exists already: another process has just made it; choose another "
            "name",
            code="voice_exists",
        ) from exc
    await _insert_samples(connection, voice)


async def replace(connection: AsyncConnection, voice: Voice) -> None:
    """Write a voice over the one of its id, if there is one."""
    from voice_server.storage import schema

    # PostgreSQL tells who waited for a row that was deleted, and made again, that there is none.
    this = schema.voices.update().where(schema.voices.c.id == voice.id)
    if not (await connection.execute(this.values(voice_row(voice)))).rowcount:
        await insert(connection, voice)
        return
    await connection.execute(schema.samples.delete().where(schema.samples.c.voice_id == voice.id))
    await _insert_samples(connection, voice)


async def _insert_samples(connection: AsyncConnection, voice: Voice) -> None:
    from voice_server.storage import schema

    rows = [sample_row(voice.id, i, sample) for i, sample in enumerate(voice.samples)]
    if rows:
        await connection.execute(schema.samples.insert(), rows)


async def delete(connection: AsyncConnection, voice_id: str) -> None:
    """Remove a voice and its samples."""
    from voice_server.storage import schema

    # The voice goes first, as it is changed: two processes would wait for each other otherwise.
    await connection.execute(schema.voices.delete().where(schema.voices.c.id == voice_id))
    await connection.execute(schema.samples.delete().where(schema.samples.c.voice_id == voice_id))


async def change(
    connection: AsyncConnection,
    voice_id: str,
    files: VoiceFiles,
    changed: Callable[[Voice], Voice],
) -> Voice:
    """Change a voice as it is stored now, whoever has changed it since it was read. Raises
    UnknownVoice, if another process has deleted it.
    """
    from sqlalchemy import select

    from voice_server.storage.schema import samples, voices

    this = select(voices).where(voices.c.id == voice_id).with_for_update()
    its = select(samples).where(samples.c.voice_id == voice_id).order_by(samples.c.position)
    row, sample_rows = [
        [dict(r) for r in (await connection.execute(query)).mappings()] for query in (this, its)
    ]
    found = _voices(row, sample_rows, files)
    if not found:
        raise unknown_voice(voice_id)
    after = dataclasses.replace(changed(found[0]), updated_at=now())
    await replace(connection, after)
    return after


def unknown_voice(voice_id: str) -> UnknownVoice:
    """What is said of an id that no voice has."""
    return UnknownVoice(f"Voice {voice_id[:80]!r} not found; GET /voices lists all")


async def load(database: Database, files: VoiceFiles) -> list[Voice]:
    """All voices of the database."""
    tables = await asyncio.to_thread(
        read_quickly,
        database.url,
        "SELECT * FROM voices",
        "SELECT * FROM samples ORDER BY position",
    )
    if tables is not None:
        voice_rows, sample_rows = tables
        return _voices(voice_rows, sample_rows, files)
    from sqlalchemy import select

    from voice_server.storage import schema

    samples_in_order = select(schema.samples).order_by(schema.samples.c.position)
    async with database.read() as connection:
        voices = (await connection.execute(select(schema.voices))).mappings().all()
        samples = (await connection.execute(samples_in_order)).mappings().all()
    return _voices([dict(row) for row in voices], [dict(row) for row in samples], files)


def _voices(voices: Sequence[Row], samples: Iterable[Row], files: VoiceFiles) -> list[Voice]:
    of_voice: dict[str, list[Sample]] = {}
    for row in samples:
        path = files.wav(row["voice_id"], row["id"])
        values = {name: row[name] for name in _SAMPLE_FIELDS}
        values["notes"] = tuple(row["notes"])
        original = str(path.with_name(row["original"])) if row["original"] else ""
        of_voice.setdefault(row["voice_id"], []).append(
            Sample(path=str(path), original=original, **values)
        )
    made = []
    for row in voices:
        values = {name: row[name] for name in _VOICE_FIELDS}
        values["tags"] = tuple(row["tags"])
        made.append(Voice(samples=tuple(of_voice.get(row["id"], ())), **values))
    return made
