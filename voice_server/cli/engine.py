"""The real speech service inside this process: what the command line speaks with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voice_server.config import Config
from voice_server.control.dropped import DroppedVoices
from voice_server.speech.service import SpeechService
from voice_server.storage.catalogue import Catalogue
from voice_server.workers.environments import spec_for
from voice_server.workers.pool import WorkerPool


@asynccontextmanager
async def engine(config: Config) -> AsyncIterator[SpeechService]:
    """A running service over the backends of ``config.start`` and the dropped voices.

    The backends must be installed. Their workers may still be loading: speaking waits for them.
    """
    pools = {
        name: WorkerPool(
            spec_for(name, config),
            config.backend(name).workers,
            lead_limit=config.limits.lead_limit,
        )
        for name in config.start
    }
    catalogue = Catalogue(config.settings.data_dir)
    dropped = DroppedVoices(config.settings.voice_samples_dir, catalogue)
    service = SpeechService(config, pools, catalogue)
    await service.start()
    dropped.start()
    try:
        await dropped.scanned.wait()
        yield service
    finally:
        await dropped.stop()
        await service.stop()
