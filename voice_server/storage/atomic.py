"""Writes files so that a reader, or the next start after a crash, sees all of one or none of it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from voice_server.core.errors import StorageFull

TEMPORARY = ".tmp-"
"""How the name of every unfinished file begins; a reconciler may remove any of them at start."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


@contextlib.contextmanager
def full_disk_told(what: str) -> Iterator[None]:
    """Turn the operating system's word for a full or broken disk into StorageFull."""
    try:
        yield
    except OSError as exc:
        error = full_disk_error(exc, what)
        if error is None:
            raise
        raise error from exc


def full_disk_error(exc: OSError, what: str) -> StorageFull | None:
    """StorageFull, if that is what the operating system says."""
    if exc.errno not in _FULL:
        return None
    return StorageFull(
        f"{what} could not be stored: {os.strerror(exc.errno or 0)}; "
        "free some space under the data folder and try again"
    )


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary file, fsync, rename, fsync of the folder.

    Raises StorageFull, and leaves nothing behind then.
    """
    write_together(path.parent, {path.name: data})


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put each of ``files`` into the folder as ``write_atomic`` does, with one fsync of the folder.

    Raises StorageFull, and leaves no unfinished file then; those before the one that failed may be
    there.
    """
    renames = {}
    with full_disk_told(", ".join(files)):
        try:
            for name, data in files.items():
                temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
                renames[temporary] = folder / name
                with open(temporary, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for temporary, path in renames.items():
                os.replace(temporary, path)
        except BaseException:
            for temporary in renames:
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
