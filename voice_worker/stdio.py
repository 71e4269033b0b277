"""The process's own descriptors: the protocol takes 0 and 1 away before a library can use them."""

from __future__ import annotations

import os

_taken: tuple[int, int] | None = None  # descriptors are global to a process anyway


def take_stdio() -> None:
    """Keep fds 0 and 1 for the protocol; give libraries /dev/null to read and stderr to print to.

    Done on descriptors, not on sys.stdout, so that C libraries cannot write into the pipe either.
    """
    global _taken
    # dup makes them close-on-exec, so a process that the model starts cannot hold the pipe open.
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    _taken = reader, writer


def taken_stdio() -> tuple[int, int] | None:
    """The descriptors to read messages from and to write them to; None before take_stdio."""
    return _taken
