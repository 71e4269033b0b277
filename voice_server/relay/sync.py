"""Keeps the relay's store equal to the box's catalogue, fetching what differs and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass

from voice_server.core.errors import RequestError, TunnelDown, VoiceServerError
from voice_server.core.manifest import MAX_PACKAGE_BYTES
from voice_server.core.tunnel import Record
from voice_server.core.voices import check_voice_id
from voice_server.relay.endpoint import Endpoint
from voice_server.relay.forward import fetch
from voice_server.relay.store import PackageStore

logger = logging.getLogger(__name__)

PREFIX = "/api/v1/tts/voices"
_MAX_LIST = 32 << 20
_DEADLINE = 120.0
_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class Synced:
    """What a synchronisation did: packages fetched, packages deleted."""

    fetched: int
    deleted: int


class Sync:
    """One box's. ``changed`` asks for a synchronisation soon; ``now`` does one."""

    def __init__(self, name: str, store: PackageStore) -> None:
        self._name = name
        self._store = store
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """The box's catalogue may be another than the store."""
        self._changed.set()

    async def run(self, endpoint: Endpoint) -> None:
        """Follow the changes of the box, as long as its session lasts."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                done = await self.now(endpoint)
            except VoiceServerError as exc:
                logger.warning("%s: voices were not synchronised: %s", self._name, exc)
                await asyncio.sleep(_RETRY)
                self._changed.set()
                continue
            if done.fetched or done.deleted:
                logger.info(
                    "%s: voices synchronised, %d fetched, %d deleted",
                    self._name,
                    done.fetched,
                    done.deleted,
                )

    async def now(self, endpoint: Endpoint) -> Synced:
        """Raises TunnelDown, TunnelTimeout, StorageFull; what was fetched before stays."""
        async with self._lock:
            wanted = await self._list(endpoint)
            held = self._store.digests
            gone = [voice_id for voice_id in held if voice_id not in wanted]
            differing = [v for v, digest in wanted.items() if held.get(v) != digest]
            fetched = 0
            for voice_id in differing:
                package = await self._package(endpoint, voice_id)
                if package is not None:
                    await self._store.put(voice_id, wanted[voice_id], package)
                    fetched += 1
            for voice_id in gone:
                await self._store.discard(voice_id)
            return Synced(fetched, len(gone))

    async def _list(self, endpoint: Endpoint) -> dict[str, str]:
        answer = await fetch(
            endpoint,
            _scope("POST", f"{PREFIX}/sync"),
            deadline=_DEADLINE,
            max_bytes=_MAX_LIST,
            own=True,
        )
        if answer.status != 200:
            raise TunnelDown(f"the box answers {answer.status} when asked for its voices")
        try:
            listed = {v["voice_id"]: v["digest"] for v in json.loads(answer.body)["voices"]}
            for voice_id, digest in listed.items():
                check_voice_id(voice_id)
                digest.encode("ascii")
        except (ValueError, TypeError, KeyError, AttributeError, RequestError) as exc:
            raise TunnelDown(f"the box's list of voices makes no sense: {exc}") from None
        return listed

    async def _package(self, endpoint: Endpoint, voice_id: str) -> bytes | None:
        """None for a voice that cannot be packed now: deleted meanwhile, or its files are gone."""
        answer = await fetch(
            endpoint,
            _scope("GET", f"{PREFIX}/{voice_id}/package"),
            deadline=_DEADLINE,
            max_bytes=MAX_PACKAGE_BYTES,
            own=True,
        )
        if answer.status == 200:
            return answer.body
        logger.warning("%s: no package of %s: %d", self._name, voice_id, answer.status)
        return None


def _scope(method: str, path: str) -> Record:
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": None,
        "subprotocols": None,
    }
