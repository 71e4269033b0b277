"""A long measurement in sections: one that fails, hangs or ends the process costs no other its
figures.
"""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voice_worker.failure import is_device_lost

# A device that is lost to this process, and not to the next one.
EXIT_LOST = 3
ENDED = "the process ended, or was stopped, while it ran"


class Sections:
    """``found`` by section, written to ``output`` after each. A section that failed, or had no time
    left of ``budget`` seconds, is ``{"missing": why}``; ``seconds`` tells how long each took.

    What ``output`` holds already is not measured again where ``is_resumed``; ``limit`` seconds
    after its begin a section ends the process, for ``supervise`` to go on behind it.
    """

    def __init__(
        self,
        found: dict[str, Any],
        output: Path,
        budget: float,
        *,
        is_resumed: bool = False,
        limit: float | None = None,
    ) -> None:
        self.found = {**found, "seconds": {}}
        self._output = output
        self._deadline = time.monotonic() + budget
        self._limit = limit
        output.parent.mkdir(parents=True, exist_ok=True)
        if is_resumed and output.is_file():
            self.found = json.loads(output.read_text())

    def run(self, name: str, measure: Callable[[], Any]) -> None:
        if name in self.found:
            return
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        if began >= self._deadline:
            self._keep(name, {"missing": "there was no time left for it"}, began)
            return
        self._keep(name, {"missing": ENDED}, began)
        if self._limit is not None:
            faulthandler.dump_traceback_later(self._limit, exit=True)
        try:
            self._keep(name, measure(), began)
        except Exception as exc:
            traceback.print_exc()
            self._keep(name, {"missing": f"{type(exc).__name__}: {exc}"[:500]}, began)
            if is_device_lost(exc) and self._limit is not None:
                sys.exit(EXIT_LOST)
        finally:
            if self._limit is not None:
                faulthandler.cancel_dump_traceback_later()
        print(json.dumps({name: self.found[name]}), file=sys.stderr, flush=True)

    def is_missing(self, name: str) -> bool:
        """It was tried, and there are no figures."""
        return name in self.found and why_missing(self.found[name]) is not None

    def _keep(self, name: str, figures: Any, began: float) -> None:
        self.found[name] = figures
        self.found["seconds"][name] = round(time.monotonic() - began, 1)
        self._output.write_text(json.dumps(self.found, indent=1))


def supervise(command: list[str], output: Path, budget: float) -> dict[str, Any]:
    """Run ``command``, whose Sections resume ``output``, again and again until it ends well, has
    found nothing new, or ``budget`` seconds are over → what was found.
    """
    output.unlink(missing_ok=True)
    deadline = time.monotonic() + budget
    known = -1
    while known < (known := len(_read(output))):
        left = deadline - time.monotonic()
        try:
            if subprocess.run([*command, "--budget", str(left)], timeout=left + 30).returncode == 0:
                break
        except subprocess.TimeoutExpired:
            break
    return _read(output)


def _read(output: Path) -> dict[str, Any]:
    return dict(json.loads(output.read_text())) if output.is_file() else {}


def why_missing(section: Any) -> str | None:
    """Why a section has no figures; None where it has."""
    return section.get("missing") if isinstance(section, dict) else None
