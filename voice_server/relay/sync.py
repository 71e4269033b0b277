"""Keeps the relay's store equal to the box's catalogue, fetching what differs and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from voice_server.core.errors import (
    RequestError,
    StorageFull,
    TooLarge,
    TunnelDown,
    VoiceServerError,
)
from voice_server.core.manifest import MAX_PACKAGE_BYTES
from voice_server.core.restart import Restart, RestartPolicy
from voice_server.core.tunnel import Record
from voice_server.core.voices import check_voice_id
from voice_server.relay.endpoint import Endpoint
from voice_server.relay.forward import fetch
from voice_server.relay.store import PackageStore

logger = logging.getLogger(__name__)

PREFIX = "/api/v1/tts/voices"
_MAX_LIST = 32 << 20
_DEADLINE = 120.0
# Changes come in crowds, such as an import of a thousand packages: one look at the list will do.
_PAUSE = 0.2
_BACKOFF = RestartPolicy(first_delay=1.0, longest_delay=60.0, failures=1_000)
_MAX_TRIES = 12
"""In a row, about eight minutes. Then only a change, or a new link, begins another."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a synchronisation did: packages fetched, packages deleted."""

    fetched: int
    deleted: int


class Sync:
    """One box's. ``changed`` asks for a synchronisation soon; ``now`` does one."""

    def __init__(self, name: str, store: PackageStore, on_failure: Callable[[], None]) -> None:
        self._name = name
        self._store = store
        self._on_failure = on_failure
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._restart = Restart(_BACKOFF)
        self._unpackable: dict[str, str] = {}  # voices without a package → digest
        self._left_out: dict[str, str] = {}  # voices that there was no room for → digest

    @property
    def is_failing(self) -> bool:
        """Whether the last synchronisation failed."""
        return self._restart.failures_in_a_row > 0

    def changed(self) -> None:
        """The box's catalogue may be another than the store."""
        self._changed.set()

    def resume(self) -> None:
        """There is a new link: what failed may work now."""
        if self.is_failing:
            self.changed()

    async def run(self, endpoint: Endpoint) -> None:
        """Follow the changes of the box, as long as its session lasts."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_PAUSE)
            self._changed.clear()
            try:
                done = await self.now(endpoint)
            except (VoiceServerError, OSError) as exc:
                # Without the name of the temporary file, which is another at each try.
                disk = exc.strerror if isinstance(exc, OSError) else None
                self._failed(f"the relay's store: {disk}" if disk else f"{exc}")
                await asyncio.sleep(max(0.0, self._restart.next_start - time.monotonic()))
                if self._restart.failures_in_a_row < _MAX_TRIES:
                    self._changed.set()
                continue
            if done.fetched or done.deleted:
                logger.info(
                    "%s: voices synchronised, %d fetched, %d deleted",
                    self._name,
                    done.fetched,
                    done.deleted,
                )

    def _failed(self, reason: str) -> None:
        """Say it when it begins, when the reason is another, and when no more is tried."""
        told = self._restart.reason if self.is_failing else ""
        self._on_failure()
        self._restart.failed(time.monotonic(), reason)
        if self._restart.failures_in_a_row == _MAX_TRIES:
            logger.warning(
                "%s: voices were not synchronised in %d tries; the next change or link begins "
                "again: %s", self._name, _MAX_TRIES, reason,
            )  # fmt: skip
        elif reason != told:
            logger.warning(
                "%s: voices are not synchronised, and it is tried again: %s", self._name, reason
            )

    async def now(self, endpoint: Endpoint) -> Synced:
        """Raises TunnelDown, TunnelTimeout, StorageFull; what was fetched before stays."""
        async with self._lock:
            wanted = await self._list(endpoint)
            held, files = self._store.digests, self._store.files
            gone = [voice_id for voice_id in files if voice_id not in wanted]
            differing = [v for v, digest in wanted.items() if held.get(v) != digest]
            fetched = 0
            for voice_id in gone:  # first: it makes room
                await self._store.discard(voice_id)
                self._left_out.clear()
            for voice_id in differing:
                digest = wanted[voice_id]
                if digest in (self._unpackable.get(voice_id), self._left_out.get(voice_id)):
                    continue
                package = await self._package(endpoint, voice_id)
                if package is None:
                    self._unpackable[voice_id] = digest
                    continue
                try:
                    self._store.check_room(voice_id, package)
                except StorageFull as exc:
                    logger.warning("%s: %s is not kept: %s", self._name, voice_id, exc)
                    self._left_out[voice_id] = digest
                    if voice_id in files:  # what the box has not any more
                        await self._store.discard(voice_id)
                    continue
                await self._store.put(voice_id, digest, package)
                fetched += 1
            self._unpackable = {v: d for v, d in self._unpackable.items() if v in wanted}
            self._left_out = {v: d for v, d in self._left_out.items() if v in wanted}
            if self.is_failing:
                logger.info("%s: voices are synchronised again", self._name)
            self._restart.ready()
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
        """None for a voice without one: deleted meanwhile, its files are gone, or it is too big."""
        try:
            answer = await fetch(
                endpoint,
                _scope("GET", f"{PREFIX}/{voice_id}/package"),
                deadline=_DEADLINE,
                max_bytes=MAX_PACKAGE_BYTES,
                own=True,
            )
        except TooLarge as exc:
            logger.warning("%s: no package of %s: %s", self._name, voice_id, exc)
            return None
        if answer.status == 200:
            return answer.body
        if answer.status >= 500:
            raise TunnelDown(f"the box answers {answer.status} when asked for {voice_id}")
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
