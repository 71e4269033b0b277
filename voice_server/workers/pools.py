"""The pools of a configuration: one for each backend that is to run."""

from __future__ import annotations

from voice_server.config import Config
from voice_server.workers.environments import spec_for
from voice_server.workers.pool import WorkerPool


def make_pools(config: Config) -> dict[str, WorkerPool]:
    """A pool for each of ``config.start``, the default backend's first; none is started yet.

    Raises BackendNotInstalled for one that is not installed.
    """
    return {
        name: WorkerPool(
            spec_for(name, config),
            config.backend(name).workers,
            lead_limit=config.limits.lead_limit,
        )
        for name in config.start
    }
