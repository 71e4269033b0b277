"""Which process owns a data folder: the one that holds the lock on ``server.lock`` in it.

The owner removes what nobody needs any more. Others, such as the command line, read and change
voices beside it, and remove nothing but what they were told to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from voice_server.core.errors import ConfigError

LOCK = "server.lock"


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder while this is open; the kernel ends it with the process, however that ends.

    Raises ConfigError, with the pid of who owns it, or with why it cannot be written.
    """
    descriptor = _locked(folder)
    try:
        yield
    finally:
        # The file stays: who removed it could take it from somebody who has just locked it.
        os.close(descriptor)


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise ConfigError(
            f"VOICE_SERVER_DATA_DIR › expected a folder that can be written, and {folder} cannot: "
            f"{exc.strerror}"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if not isinstance(exc, BlockingIOError):
            raise ConfigError(
                f"VOICE_SERVER_DATA_DIR › {folder} cannot be locked: {exc.strerror}"
            ) from exc
        raise ConfigError(
            f"VOICE_SERVER_DATA_DIR › another server (pid {holder or 'unknown'}) works on "
            f"{folder}: stop it, or give this one a folder of its own. For more load, raise "
            "--pool-size"
        ) from None
    # On a full disk the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
