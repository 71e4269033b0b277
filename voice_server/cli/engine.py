"""The real speech service inside this process: what the command line speaks with.

A server may run on the same data folder: its voices are these, and nothing of them is changed here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voice_server.config import Config
from voice_server.control.dropped import DroppedVoices
from voice_server.speech.service import SpeechService
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.database import database_of
from voice_server.workers.environments import spec_for
from voice_server.workers.pool import WorkerPool


@asynccontextmanager
async def engine(config: Config) -> AsyncIterator[SpeechService]:
    """A running service over the backends of ``config.start`` and all voices there are.

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
    settings = config.settings
    catalogue = Catalogue(settings.data_dir, database=database_of(settings))
    dropped = DroppedVoices(settings.voice_samples_dir, catalogue)
    service = SpeechService(config, pools, catalogue, is_patient=True)
    await service.start()
    await catalogue.load()
    dropped.start()
    try:
        await dropped.scanned.wait()
        yield service
    finally:
        await dropped.stop()
        await service.stop()
        await catalogue.close()
