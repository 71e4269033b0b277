"""What every engine's suite begins with, in the engine's own environment and in the server's."""

from __future__ import annotations

import os
from importlib.util import find_spec

import tests.examples  # noqa: F401

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def uncollected(package: str) -> list[str]:
    """For ``collect_ignore_glob``, of a suite that needs torch and ``package``: the server's own
    environment has no torch, and never will.
    """
    return [] if find_spec("torch") and find_spec(package) else ["test_*.py"]
