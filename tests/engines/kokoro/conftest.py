"""Fixtures of the Kokoro suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

import pytest

from tests.engines.environment import uncollected

collect_ignore_glob = uncollected("kokoro")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small model and eleven voices, as they lie in the hub's repository."""
    import checkpoint

    return checkpoint.write(tmp_path_factory.mktemp("kokoro"))


@pytest.fixture(scope="session")
def kokoro(folder):
    from backend import Kokoro

    backend = Kokoro()
    backend.info = backend.load({"model": str(folder), "device": "cpu"})
    return backend
