"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of what is tested: no example has a deadline, and none is too slow.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("patient")


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
