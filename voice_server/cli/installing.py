"""Installs what a command is about to run, and lets a person see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from voice_server.cli.console import confirm, progress
from voice_server.config import Config
from voice_server.workers.environments import Environment, ensure_installed

logger = logging.getLogger(__name__)


@contextmanager
def logged(title: str) -> Iterator[Callable[[str], None]]:
    """``progress`` for a program that reads the log: stderr has nothing else in it."""
    yield lambda line: logger.info("%s: %s", title, line)


def install_what_is_missing(
    config: Config,
    shown: Callable[[str], AbstractContextManager[Callable[[str], None]]] = progress,
    *,
    asks: bool = True,
) -> None:
    """Make every backend of ``config.start`` ready to run, showing what is done.

    Installs what is marked auto_install, and ``asks`` about the others where there is somebody to
    ask. Raises BackendNotInstalled, ConfigError.
    """
    for name in config.start:
        reason = Environment(name, config).health()
        if reason is None:
            continue
        # Asked before the spinner turns: it would write over the question.
        is_allowed = (
            asks
            and not config.backend(name).auto_install
            and confirm(f"{name} › {reason}. Install it now?")
        )
        with shown(f"installing {name}") as show:
            ensure_installed(name, config, show, is_allowed)
