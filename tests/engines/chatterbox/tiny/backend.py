"""The backend itself, over small models: what `path:` and a worker's command line are given."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BACKEND = HERE.parents[3] / "backends" / "chatterbox"
sys.path[:0] = [str(BACKEND), str(HERE.parent)]

import shrink  # noqa: E402, F401

runpy.run_path(str(BACKEND / "backend.py"), run_name="__main__")
