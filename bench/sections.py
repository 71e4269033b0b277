"""A long measurement in sections: one that fails costs no other its figures."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Sections:
    """``found`` by section, written to ``output`` after each. A section that failed, or had no time
    left of ``budget`` seconds, is ``{"missing": why}``; ``seconds`` tells how long each took.
    """

    def __init__(self, found: dict[str, Any], output: Path, budget: float) -> None:
        self.found = {**found, "seconds": {}}
        self._output = output
        self._deadline = time.monotonic() + budget
        output.parent.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, measure: Callable[[], Any]) -> None:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        if began >= self._deadline:
            self.found[name] = {"missing": "there was no time left for it"}
        else:
            try:
                self.found[name] = measure()
            except Exception as exc:
                traceback.print_exc()
                self.found[name] = {"missing": f"{type(exc).__name__}: {exc}"[:500]}
        self.found["seconds"][name] = round(time.monotonic() - began, 1)
        self._output.write_text(json.dumps(self.found, indent=1))


def why_missing(section: Any) -> str | None:
    """Why a section has no figures; None where it has."""
    return section.get("missing") if isinstance(section, dict) else None
