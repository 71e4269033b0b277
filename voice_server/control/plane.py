"""What the doors of the control plane share, put together from the settings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from voice_server.config import Settings
from voice_server.control.cloning import Cloning, Transcribe
from voice_server.control.packages import Packages
from voice_server.control.signing import Signer
from voice_server.core.errors import VoiceServerError
from voice_server.core.voices import Sample, Voice
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.history import History
from voice_server.storage.keyring import Keyring
from voice_server.storage.previews import Previews, Session
from voice_server.storage.projects import Projects
from voice_server.storage.prompts import PromptCache
from voice_server.storage.stamp import Stamp
from voice_server.storage.voice_files import CLOCK_SLACK
from voice_worker.backend import BackendInfo

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
FOLLOW_SECONDS = 1.0


class ControlPlane:
    """What the doors of the control plane share. ``catalogue`` is loaded by its owner."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        keyring: Keyring,
        transcribe: Transcribe | None = None,
        backends: Callable[[], Mapping[str, BackendInfo]] = dict,
    ) -> None:
        self.keyring = keyring
        self._stamp = Stamp(catalogue.data_dir)
        signing_key = settings.package_signing_key
        self.catalogue = catalogue
        self.cloning = Cloning(catalogue, transcribe=transcribe, backends=backends)
        self.packages = Packages(
            catalogue,
            signer=Signer.from_file(signing_key) if signing_key else None,
            trusted=settings.package_trusted_keys,
        )
        self.history = History(settings.data_dir / "generations", catalogue.database)
        self.projects = Projects(catalogue.database)
        self.previews = Previews(
            settings.data_dir,
            upload_retention=settings.upload_retention,
            preview_retention=settings.preview_retention,
        )
        self._prompts = PromptCache(
            catalogue.data_dir / "prompts",
            settings.prompt_cache_mb * 1024 * 1024,
            catalogue.prompts_used,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to remove what has been kept long enough, and to look for foreign changes."""
        self._tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._follow())]

    async def stop(self) -> None:
        """End both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                if await asyncio.to_thread(self._stamp.has_changed):
                    await self.catalogue.refresh()
                    await self.keyring.load()
            except Exception:
                logger.exception("what another process changed was not taken over")

    async def _sweep(self) -> None:
        started = time.time() - CLOCK_SLACK
        try:
            await self.history.reconcile(started)
        except (VoiceServerError, OSError) as exc:
            logger.warning("the folder of generations could not be looked through: %s", exc)
        while True:
            try:
                await asyncio.to_thread(self._prompts.sweep)
                removed = await asyncio.to_thread(self.previews.sweep)
                if removed:
                    logger.info("removed %d uploads and previews that nobody saved", removed)
            except OSError as exc:
                logger.warning("uploads and previews could not be swept: %s", exc)
            await asyncio.sleep(SWEEP_SECONDS)


def voice_of(session: Session) -> Voice:
    """An uploaded recording as a voice, to be lent to the catalogue while it speaks."""
    sample = Sample(
        id=session.id,
        path=str(session.wav),
        sha256=session.sha256,
        transcript=session.transcript,
        duration=session.duration,
    )
    return Voice(id=session.id, name="", kind="cloned", samples=(sample,))
