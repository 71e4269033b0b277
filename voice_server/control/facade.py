"""Voices and packages for Python programs, without a server and without asyncio.

    from server.voice_manager import VoiceManager
    from server.voice_packager import VoicePackager

Every call opens the folder, does its work and closes it, so that nothing has to be closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from voice_server.control.adoption import Refused, adopt, is_kept_in
from voice_server.control.cloning import Cloning
from voice_server.control.packages import OnConflict, Packages
from voice_server.core.errors import NotFound
from voice_server.core.manifest import SUFFIX
from voice_server.core.voices import Voice
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.database import Database, sqlite_url

logger = logging.getLogger(__name__)

T = TypeVar("T")


class VoiceManager:
    """A folder of voices: ``folder/<voice id>/`` holds the recordings, ``catalog.db`` the rest.

    A folder that another server filled, ``folder/<voice id>/ref.wav``, is taken over when it is
    first used; see ``control.adoption``.

    ``database_url`` opens a server's catalogue instead, whose recordings are in ``folder``. Errors
    are those of ``voice_server.core.errors``.
    """

    def __init__(self, folder: str | Path = "./voices", *, database_url: str | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._catalog = self.folder / "catalog.db"
        self._is_own = database_url is None
        self._url = database_url or sqlite_url(self._catalog)

    def list_voices(self) -> list[Voice]:
        """All voices, newest first."""

        async def listed(catalogue: Catalogue) -> list[Voice]:
            return list(catalogue.voices())

        return self.run(listed)

    def get_voice(self, voice_id: str) -> Voice:
        """The voice of this id, or the only one of this name. Raises UnknownVoice."""

        async def found(catalogue: Catalogue) -> Voice:
            return catalogue.find(voice_id)

        return self.run(found)

    def clone_voice(
        self, name: str, recording: str | Path | bytes, transcript: str | None = None, **fields: Any
    ) -> Voice:
        """A new voice from a recording (audio or video); ``fields`` are those of Voice."""
        source = recording if isinstance(recording, bytes) else Path(recording)

        async def cloned(catalogue: Catalogue) -> Voice:
            cloning = Cloning(catalogue)
            made = await cloning.clone(source, name=name, transcript=transcript, **fields)
            return made.voice

        return self.run(cloned)

    def delete_voice(self, voice_id: str) -> Voice:
        """Remove a voice and its recordings. Raises UnknownVoice."""

        async def deleted(catalogue: Catalogue) -> Voice:
            return await catalogue.delete(voice_id)

        return self.run(deleted)

    def run(self, work: Callable[[Catalogue], Awaitable[T]]) -> T:
        """Do ``work`` on the opened catalogue, also from a program that has an event loop."""

        async def opened() -> T:
            catalogue = Catalogue(self.folder, database=Database(self._url), voices_dir=self.folder)
            is_foreign = self._is_own and not self._catalog.exists() and is_kept_in(self.folder)
            await catalogue.load()
            try:
                if is_foreign:
                    async for done in adopt(Packages(catalogue), self.folder, "skip"):
                        if isinstance(done, Refused):
                            logger.warning("%s › %s › %s", self.folder, done.id, done.error)
                return await work(catalogue)
            finally:
                await catalogue.close()

        # A thread of its own: the caller may be inside an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, opened()).result()


class VoicePackager:
    """Packages of the voices of a VoiceManager."""

    def __init__(self, manager: VoiceManager) -> None:
        self.manager = manager

    def export_package(self, voice_id: str, path: str | Path | None = None) -> Path:
        """Write the voice's package; the default name is ``<voice id>.voicepkg.zip``, here."""
        target = Path(path if path is not None else f"{voice_id}{SUFFIX}")

        async def packed(catalogue: Catalogue) -> bytes:
            return await Packages(catalogue).pack(voice_id)

        data = self.manager.run(packed)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    def import_package(
        self, package: str | Path | bytes, on_conflict: OnConflict = "error"
    ) -> Voice:
        """Take a package into the folder, whole or not at all; see ``Packages.unpack``."""
        try:
            data = package if isinstance(package, bytes) else Path(package).read_bytes()
        except OSError as exc:
            raise NotFound(f"no package at {package!s:.200}: {exc.strerror}") from None

        async def unpacked(catalogue: Catalogue) -> Voice:
            return (await Packages(catalogue).unpack(data, on_conflict)).voice

        return self.manager.run(unpacked)

    def export_all(self, folder: str | Path) -> list[Path]:
        """Write the package of every voice into ``folder``."""

        async def packed(catalogue: Catalogue) -> list[Path]:
            return await Packages(catalogue).pack_all(Path(folder))

        return self.manager.run(packed)
