"""The folder that a worker has for its temporary files, and that goes when the worker is gone.

A worker ends by ``os._exit`` or is killed, so nothing in it tidies up. The server locks the folder
while the worker lives: one that nobody locks was left by a server that was killed itself, and goes
when the next pool starts. The lock also tells systemd-tmpfiles, which removes what is old, to leave
alone the folder of a worker that runs for weeks (tmpfiles.d(5), "Age").
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Final

logger = logging.getLogger(__name__)

# With the pid of the server. Short: sockets lie in there, whose paths have 107 bytes at most.
_PREFIX: Final = "voice-worker"
_OURS: Final = re.compile(rf"{_PREFIX}-\d+-[a-z0-9_]{{8}}")


class Scratch:
    """An empty folder in ``parent``, the server's temporary folder otherwise, of mode 0700.

    ``path`` is None, and a warning is logged, where none can be made: a full disk keeps no worker
    from its start.
    """

    def __init__(self, parent: str | None = None) -> None:
        self.path: str | None = None
        try:
            self.path, self._lock = _made(parent)
        except OSError as exc:
            logger.warning("a worker has no folder of its own for temporary files: %s", exc)

    def environment(self, of: Mapping[str, str]) -> dict[str, str]:
        """``of``, with this folder for temporary files; caches stay where they outlive a worker."""
        if self.path is None:
            return dict(of)
        # By default the compiler of torch keeps what it has compiled among the temporary files.
        compiled = os.path.join(os.path.dirname(self.path), f"torchinductor_{os.getuid()}")
        return {"TORCHINDUCTOR_CACHE_DIR": compiled, **of, "TMPDIR": self.path}

    def remove_empty(self) -> bool:
        """Remove the folder if nothing is in it, which takes microseconds. False: something is."""
        if self.path is not None:
            try:
                os.rmdir(self.path)
            except OSError:
                return False
            os.close(self._lock)
            self.path = None
        return True

    def remove(self) -> None:
        """Remove the folder with all that is in it, however long that takes. Raises nothing."""
        if self.path is not None:
            _remove(self.path, self._lock)
            self.path = None


def remove_abandoned(parent: str | None = None) -> None:
    """Remove the folders in ``parent`` whose server was killed. Raises nothing."""
    with contextlib.suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if not _OURS.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                is_own = entry.stat(follow_symlinks=False).st_uid == os.geteuid()
                if is_own and (lock := _locked(entry.path)) is not None:
                    _remove(entry.path, lock)


def _made(parent: str | None) -> tuple[str, int]:
    while True:
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=parent)
        # Before it is locked, another server that starts now may take it for abandoned.
        with contextlib.suppress(FileNotFoundError):
            if (lock := _locked(path)) is not None:
                return path, lock


def _locked(path: str) -> int | None:
    """A descriptor that holds the lock on the folder; None if somebody holds it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(path)  # whoever held it before may have removed it
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(path: str, lock: int) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        logger.warning("%s is left behind: %s", path, exc.strerror or exc)
    finally:
        os.close(lock)
