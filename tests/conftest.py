"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import tests.examples  # noqa: F401


@pytest.fixture
def anyio_backend() -> str:
    """What coroutines that are tests run on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that is run in this process configures logging, for its own output and level."""
    root = logging.getLogger()
    loggers = [root, *(v for v in root.manager.loggerDict.values() if hasattr(v, "setLevel"))]
    levels = {logger: logger.level for logger in loggers}
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    for logger, level in levels.items():
        if logger.level != level:
            logger.setLevel(level)
