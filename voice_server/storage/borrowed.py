"""Recordings that somebody speaks with: removed from the catalogue, they stay until that ends.

A worker reads a recording when it needs it, which may be at any segment of a turn. What is left
when the process ends is found by the sweep of the next start.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from voice_server.core.voices import Sample
from voice_server.storage.voice_files import VoiceFiles


class Borrowed:
    """Used from one event loop. A voice is what ``core.voices.resolve`` returned."""

    def __init__(self, files: VoiceFiles) -> None:
        self._files = files
        self._users: Counter[str] = Counter()  # by path
        self._leaving: dict[str, tuple[str, Sample]] = {}
        self._removing: set[asyncio.Task[None]] = set()

    def borrow(self, voice: Mapping[str, Any]) -> None:
        """Its recordings stay until they are given back as often as they were borrowed."""
        for sample in voice.get("samples", ()):
            self._users[sample["path"]] += 1

    def give_back(self, voice: Mapping[str, Any]) -> None:
        """Remove those that nobody else speaks with, if they are to be removed."""
        for sample in voice.get("samples", ()):
            path = sample["path"]
            self._users[path] -= 1
            if self._users[path] > 0:
                continue
            del self._users[path]
            if path in self._leaving:
                voice_id, gone = self._leaving.pop(path)
                task = asyncio.create_task(self._remove(voice_id, [gone]))
                self._removing.add(task)
                task.add_done_callback(self._removing.discard)

    async def remove(self, voice_id: str, samples: Iterable[Sample]) -> None:
        """Remove the files of samples that no voice has any more, now or when they are free."""
        free: list[Sample] = []
        for sample in samples:
            if sample.path in self._users:
                self._leaving[sample.path] = voice_id, sample
            else:
                free.append(sample)
        await self._remove(voice_id, free)

    async def finish(self) -> None:
        """Return when what was given back is removed."""
        await asyncio.gather(*self._removing)

    async def _remove(self, voice_id: str, samples: Iterable[Sample]) -> None:
        await asyncio.to_thread(self._files.remove, voice_id, samples)
