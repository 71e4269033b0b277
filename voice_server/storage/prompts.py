"""The disk space of prepared voices: what backends keep under ``prompts/<backend>/<digest>``.

A backend writes what it likes there; this only takes away, the least recently used first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

# What was used this recently may be open in a worker now.
_IN_USE = 300.0


@dataclass(slots=True)
class _Entry:
    path: str
    bytes: int
    used: float


class PromptCache:
    """The folder ``prompts``. ``used`` tells when each folder in it was last asked for, in seconds
    since 1970, by its path; what is not in there counts by the time of its newest file,
    and what is not there any more is taken out of it.
    """

    def __init__(self, folder: Path, max_bytes: int, used: MutableMapping[str, float]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._used = used

    def sweep(self) -> int:
        """Make room: returns how many bytes were removed. Blocking."""
        self._forget()
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in entries)
        removed = 0
        for entry in entries:
            if total - removed <= self._max_bytes or time.time() - entry.used < _IN_USE:
                break
            shutil.rmtree(entry.path, ignore_errors=True)
            removed += entry.bytes
        return removed

    def _forget(self) -> None:
        # Most backends keep no prompt, and what is not there needs no time.
        for path, used in list(self._used.items()):
            if time.time() - used > _IN_USE and not os.path.exists(path):
                self._used.pop(path, None)

    def _entries(self) -> list[_Entry]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as backends:
            for backend in backends:
                if not backend.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(backend.path) as prompts:
                    found += [self._entry(p) for p in prompts if p.is_dir(follow_symlinks=False)]
        return found

    def _entry(self, prompt: os.DirEntry[str]) -> _Entry:
        size, newest = 0, prompt.stat(follow_symlinks=False).st_mtime
        for folder, _, names in os.walk(prompt.path):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(folder, name))
                    size += status.st_size
                    newest = max(newest, status.st_mtime)
        return _Entry(prompt.path, size, max(newest, self._used.get(prompt.path, 0.0)))
