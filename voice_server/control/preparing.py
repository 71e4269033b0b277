"""Has a new voice prepared by the backends that can speak it, before anybody asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from voice_server.core.errors import VoiceServerError
from voice_server.core.voices import Voice, can_speak, is_too_short
from voice_server.storage.catalogue import Catalogue
from voice_server.workers.pool import WorkerPool

logger = logging.getLogger(__name__)

# Of an import of thousands only the last are made ready; the others are when they are asked for.
MAX_WAITING = 32


class Preparing:
    """One voice at a time, so that it never takes more than one worker away from speaking."""

    def __init__(self, catalogue: Catalogue, pools: Mapping[str, WorkerPool]) -> None:
        self._catalogue = catalogue
        self._pools = pools
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen to the catalogue."""
        self._catalogue.subscribe(self._changed)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave what waits as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _changed(self, voice_id: str, voice: Voice | None) -> None:
        self._waiting.pop(voice_id, None)
        if voice is None or not voice.samples:
            return
        self._waiting[voice_id] = None
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._wake.set()

    async def _run(self) -> None:
        while True:
            while self._waiting:
                voice_id = next(iter(self._waiting))
                del self._waiting[voice_id]
                for backend, pool in list(self._pools.items()):
                    await self._prepare(voice_id, backend, pool)
            self._wake.clear()
            await self._wake.wait()

    async def _prepare(self, voice_id: str, backend: str, pool: WorkerPool) -> None:
        info = pool.info
        if info is None or not pool.is_ready or voice_id not in self._catalogue:
            return
        voice = self._catalogue.get(voice_id)
        if is_too_short(info, voice.samples):
            logger.warning(
                "voice %s is too short for %s, which needs more than %g s of recording",
                voice_id,
                backend,
                info.min_sample_seconds,
            )
        if not can_speak(info, voice):
            return
        try:
            await pool.prepare(self._catalogue.resolve(voice_id, backend, info))
        except VoiceServerError as exc:
            # It is told again, to whoever asks for the voice.
            logger.info("%s did not prepare voice %s: %s", backend, voice_id, exc.code)
