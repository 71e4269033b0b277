"""Where a turn is spoken and how: what its configuration comes to."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from voice_server.config import Config
from voice_server.core import wire
from voice_server.core.errors import UnknownVoice
from voice_server.core.events import TurnOptions
from voice_server.core.options import job_params
from voice_server.storage.catalogue import Catalogue
from voice_server.workers.pool import WorkerPool
from voice_worker.backend import BackendInfo

MAX_DELAY: Final = 3.0  # seconds of silence from the model after which what is buffered is spoken
# Below this real-time factor a segment is made long before the one ahead of it was heard. Nothing
# is gained by two at a time, and a client that does not read leaves their sound with us.
QUICK_RTF: Final = 0.1
QUICK_BACKLOG: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """Where a turn is spoken and how: everything that its configuration was resolved to."""

    backend: str
    pool: WorkerPool
    voice: dict[str, Any]
    voice_name: str
    params: dict[str, Any]
    options: TurnOptions
    options_when_quick: TurnOptions
    seed: int
    tenant: str = ""
    door: str = "local"  # by which its text came in
    lead_limit: float = 10.0
    slots: int = 1
    is_batching: bool = False  # its workers run several jobs at once, on credit
    catalogue_version: int = 0  # at which its voice was found

    def options_for_listener(self) -> TurnOptions:
        """For somebody who listens while the turn is made: by how quick the pool is now."""
        rtf = self.pool.capacity().rtf
        return self.options if rtf is None or rtf >= QUICK_RTF else self.options_when_quick


def find_route(
    asked: wire.Configure,
    tenant: str,
    door: str,
    pool: WorkerPool,
    info: BackendInfo,
    *,
    config: Config,
    catalogue: Catalogue,
) -> Route:
    """Raises UnknownVoice, UnknownOption."""
    backend, limits = pool.spec.backend, config.limits
    own = config.backend(backend)
    voice = catalogue.resolve(asked.voice, backend, info, default=own.voice, aliases=own.aliases)

    def cast(name: str) -> dict[str, Any] | None:
        try:
            return catalogue.resolve(name, backend, info, aliases=own.aliases)
        except UnknownVoice:
            return None

    options = TurnOptions(
        streams_text=info.streams_text,
        word_timing=info.word_timing,
        normalizes=info.normalizes,
        tags=info.tags,
        cast=cast if info.dialogue else None,
        language=asked.language,
        ssml=bool(asked.opts.get("ssml")) and "ssml" in info.options,
        timestamps=asked.timestamps,
        words_first=asked.words_first,
        is_extended=asked.is_extended,
        max_delay=MAX_DELAY if asked.max_delay is None else asked.max_delay,
        max_segment_chars=limits.max_segment_chars,
        max_turn_chars=limits.max_turn_chars,
        job_chars=info.max_chars,
    )
    return Route(
        backend=backend,
        pool=pool,
        voice=voice,
        catalogue_version=catalogue.version,
        voice_name=asked.voice or own.voice or info.default_speaker or "",
        params=job_params(asked, backend, info),
        options=options,
        options_when_quick=replace(options, lookahead=1, backlog=QUICK_BACKLOG),
        seed=secrets.randbits(31) if asked.seed is None else asked.seed,
        tenant=tenant,
        door=door,
        lead_limit=limits.lead_limit,
        # Not those of this moment: a worker that has just died is back in a moment.
        slots=pool.size * info.slots,
        is_batching=info.streams_text or info.slots > 1,
    )
