"""A file whose time says that another process has changed the data."""

from __future__ import annotations

import os
from pathlib import Path


class Stamp:
    """``changed`` in a data folder. Who changes data beside a running server calls ``touch``."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "changed"
        self._seen = self._time()

    def touch(self) -> None:
        """Tell the server that runs on this folder, if one does."""
        self._path.touch()
        os.utime(self._path)

    def has_changed(self) -> bool:
        """Whether it was touched since the last time this was asked."""
        time = self._time()
        seen, self._seen = self._seen, time
        return time != seen

    def _time(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
