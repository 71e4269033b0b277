"""What a backend has computed of a voice, kept on disk for the next worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


def keep(path: Path, save: Callable[[Path], object]) -> None:
    """``save`` writes the file, which is there whole or not at all.

    A voice that cannot be kept costs time, not speech: the log tells.
    """
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as exc:  # safetensors has a class of its own, even for a full disk
        log.warning("the voice could not be kept in %s: %s", path.name, exc)
        with suppress(OSError):
            temporary.unlink()
