"""Which Pythons a backend runs on: what the requires-python.txt beside its requirements says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from voice_server.core.errors import ConfigError

REQUIRES_PYTHON: Final = "requires-python.txt"
OLDEST: Final = 10  # Python 3.10: what voice_worker runs on
_RANGE: Final = re.compile(r">=3\.(\d+)(?:,<3\.(\d+))?")


@dataclass(frozen=True)
class Pythons:
    """Python 3.``oldest`` and newer, older than 3.``below`` if that is known."""

    oldest: int = OLDEST
    below: int | None = None

    @classmethod
    def beside(cls, requirements: Path | None) -> Pythons:
        """Every one that workers run on, where no file says otherwise. Raises ConfigError."""
        file = requirements and requirements.with_name(REQUIRES_PYTHON)
        if not file or not file.is_file():
            return cls()
        said = file.read_text("utf-8").strip()
        if (match := _RANGE.fullmatch(said)) is None:
            raise ConfigError(f"{file} › expected a line like >=3.11,<3.13, got {said[:80]!r}")
        return cls(max(OLDEST, int(match[1])), int(match[2]) if match[2] else None)

    def __contains__(self, version: Sequence[int]) -> bool:
        major, minor, *_ = version
        return major == 3 and minor >= self.oldest and (self.below is None or minor < self.below)

    def __str__(self) -> str:
        if self.below is None:
            return f"Python 3.{self.oldest} or newer"
        newest = self.below - 1
        until = f" to 3.{newest}" if newest > self.oldest else ""
        return f"Python 3.{self.oldest}{until}"
