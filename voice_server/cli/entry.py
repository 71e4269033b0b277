"""Starts cli.py and server.py, or says in one line why this Python cannot."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn


def start(module: str) -> None:
    """Call ``main`` of the module. Ends with status 2 where this Python lacks what it imports."""
    _open_what_is_closed()
    script = Path(sys.argv[0]).name
    remedy = f"run `uv run {script}`, or use the Python of a venv that has requirements.txt"
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts it may have an older one
        version = ".".join(map(str, sys.version_info[:2]))
        _refuse(f"{script} needs Python 3.11 or newer, and {sys.executable} is {version}: {remedy}")
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as exc:
        _refuse(f"{exc.name} is not installed for {sys.executable}: {remedy}")
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        main()
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        _refuse(f"{exc.filename or 'the output'} cannot be written: {exc.strerror}", status=1)


def _open_what_is_closed() -> None:
    """Let what is said go nowhere where ``>&-`` closed its stream.

    Python has None there, and the descriptor would be that of the next file that is opened.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process


def _refuse(reason: str, status: int = 2) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(status)
