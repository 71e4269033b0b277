"""The relay's copies of a box's voice packages: served while the box is away.

<folder>/index.json                 voice → digest, as the box told it
<folder>/<voice>.voicepkg.zip
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from voice_server.core.errors import RequestError, StorageFull, UnknownVoice
from voice_server.core.manifest import SUFFIX
from voice_server.core.voices import check_voice_id
from voice_server.storage.atomic import TEMPORARY, sync_folder, write_atomic

logger = logging.getLogger(__name__)

_INDEX = "index.json"


class PackageStore:
    """Packages of one box. Used by one task at a time; asking is free to all."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """``max_bytes``: of all packages together."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._digests: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    @property
    def digests(self) -> Mapping[str, str]:
        """Digest of each voice whose package is here."""
        return self._digests

    @property
    def files(self) -> Collection[str]:
        """Voices that may have a file here: those, and what a write left that was broken off."""
        return tuple(self._sizes)

    async def load(self) -> None:
        """Take what is on the disk; what a crash left half done goes."""
        self._digests, self._sizes = await asyncio.to_thread(self._load)

    def check_room(self, voice_id: str, package: bytes) -> None:
        """Raises StorageFull for a package that would be more than may be kept."""
        others = sum(size for held, size in self._sizes.items() if held != voice_id)
        if others + len(package) > self._max_bytes:
            raise StorageFull(
                f"the relay keeps {self._max_bytes / 2**20:g} MiB of a box's voices and has "
                f"{others / 2**20:.1f}: delete some, or raise VOICE_SERVER_RELAY_STORE_MB"
            )

    async def put(self, voice_id: str, digest: str, package: bytes) -> None:
        """Keep a package, for which there is room.

        Raises StorageFull, RequestError for an id that is none.
        """
        path = self._path(voice_id)
        # Between the two writes the old digest is gone: at worst the package is fetched again.
        await self._index({k: v for k, v in self._digests.items() if k != voice_id})
        self._sizes[voice_id] = len(package)  # a thread writes on when nobody waits for it any more
        await asyncio.to_thread(write_atomic, path, package)
        await self._index({**self._digests, voice_id: digest})

    async def discard(self, voice_id: str) -> None:
        """Delete a package."""
        path = self._path(voice_id)
        await self._index({k: v for k, v in self._digests.items() if k != voice_id})
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._sizes.pop(voice_id, None)

    def path(self, voice_id: str) -> Path:
        """Where the package lies. Raises UnknownVoice."""
        if voice_id not in self._digests:
            raise UnknownVoice(
                f"Voice {voice_id[:80]!r} is not in the relay's store, and its box is away"
            )
        return self._path(voice_id)

    def _path(self, voice_id: str) -> Path:
        check_voice_id(voice_id)
        return self._folder / f"{voice_id}{SUFFIX}"

    async def _index(self, digests: dict[str, str]) -> None:
        if digests != self._digests:
            data = json.dumps(digests, indent=1, sort_keys=True).encode()
            await asyncio.to_thread(write_atomic, self._folder / _INDEX, data)
            self._digests = digests

    def _load(self) -> tuple[dict[str, str], dict[str, int]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = {}
        try:
            listed = json.loads((self._folder / _INDEX).read_bytes())
            for voice_id, digest in dict(listed).items():
                if isinstance(digest, str) and self._path(voice_id).is_file():
                    found[voice_id] = digest
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, RequestError) as exc:
            logger.warning("%s/%s is damaged (%s); all is fetched anew", self._folder, _INDEX, exc)
            found = {}
        kept = {f"{voice_id}{SUFFIX}" for voice_id in found}
        for path in self._folder.iterdir():
            is_ours = path.name.endswith(SUFFIX) or path.name.startswith(TEMPORARY)
            if is_ours and path.name not in kept:
                path.unlink(missing_ok=True)
        sync_folder(self._folder)
        return found, {voice_id: self._path(voice_id).stat().st_size for voice_id in found}
