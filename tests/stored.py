"""Voices and samples for tests of the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.recordings import wav
from voice_server.core.voices import Voice
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.voice_files import NewSample

WAV = wav(2)


@asynccontextmanager
async def open_catalogue(folder: Path, *, is_owner: bool = True) -> AsyncIterator[Catalogue]:
    """A catalogue with what the folder holds."""
    catalogue = Catalogue(folder)
    await catalogue.load(is_owner=is_owner)
    try:
        yield catalogue
    finally:
        await catalogue.close()


def new(sample_id: str = "s1", transcript: str | None = "Hello.", **more: Any) -> NewSample:
    return NewSample(
        id=sample_id,
        wav=WAV,
        sha256=hashlib.sha256(WAV).hexdigest(),
        duration=2.0,
        sample_rate=44_100,
        loudness=-20.0,
        notes=("short",),
        transcript=transcript,
        **{"original": b"as given", "extension": "mp3", **more},
    )


def voice(voice_id: str = "maya", name: str = "Maya", **more: Any) -> Voice:
    return Voice(
        voice_id, name, "cloned", consent={"by": "Maya"}, tags=("warm",), owner="me", **more
    )
