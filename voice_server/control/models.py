"""Loads and unloads the models of backends: an unloaded one has no process, so no memory.

loaded ──unload, or nobody spoke for long──► unloading (its turns finish) ──► unloaded
  ▲                                                                              │
  └────────── load, or the next turn, which waits for it ◄───────────────────────┘
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any, Literal

from voice_server.core.errors import BusyError, RequestError, UnknownBackend, VoiceServerError
from voice_server.core.expectations import suggest
from voice_server.workers.pool import WorkerPool
from voice_server.workers.process import WorkerSpec

logger = logging.getLogger(__name__)

State = Literal["loaded", "loading", "unloading", "unloaded", "failed"]
_LOOK = 5.0
_POLL = 0.05
_SIZE = re.compile(r"\d+(\.\d+)?[BM]", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of one backend's model. ``memory_mb``: of its processes together."""

    backend: str
    state: State
    model: str
    workers: int
    device: str
    memory_mb: float
    turns: int
    reason: str


class Models:
    """The pools of a server as models. ``pools`` is changed in place.

    ``make``: an unstarted pool of a spec. ``turns_on``: how many turns a pool speaks.
    ``idle_unload``: seconds without a turn after which a model is unloaded; 0 is never.
    """

    def __init__(
        self,
        pools: MutableMapping[str, WorkerPool],
        make: Callable[[WorkerSpec, WorkerPool], WorkerPool],
        turns_on: Callable[[WorkerPool], int],
        idle_unload: float = 0.0,
    ) -> None:
        self._pools = pools
        self._make = make
        self._turns_on = turns_on
        self._idle_unload = idle_unload
        self._busy: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in pools}
        self._unloading: set[str] = set()
        self._spoken: dict[str, tuple[WorkerPool, int]] = {}
        self._quiet_since: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to unload what nobody uses, if that is wanted."""
        if self._idle_unload:
            self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def states(self) -> list[ModelState]:
        """Every model, the default one first."""
        return [self.state(name) for name in self._pools]

    def state(self, name: str) -> ModelState:
        """One model. Raises UnknownBackend."""
        pool = self._pool(name)
        workers = pool.snapshot()["workers"]
        state: State
        if name in self._unloading:
            state = "unloading"
        elif not pool.is_started:
            state = "unloaded"
        elif pool.is_ready:
            state = "loaded"
        else:
            state = "failed" if pool.last_error else "loading"
        options = pool.spec.options
        return ModelState(
            backend=name,
            state=state,
            model=str(options.get("model", options.get("model_size", ""))),
            workers=len(workers),
            device=pool.info.device if pool.info and pool.has_been_ready else "",
            memory_mb=round(sum(worker["resident_mb"] or 0.0 for worker in workers), 1),
            turns=self._turns_on(pool),
            reason=pool.last_error,
        )

    async def load(
        self, name: str, model_size: str | None = None, patience: float = 300.0
    ) -> ModelState:
        """Load a model, or, with another size, that one in its place. Returns once it is warm.

        Raises UnknownBackend, WorkerStartError with its reason, NotReady after ``patience``.
        """
        pool = self._pool(name)
        async with self._busy[name]:
            pool = self._pool(name)
            if model_size is not None:
                spec = _resized(pool.spec, model_size)
                if spec.options != pool.spec.options:
                    await self._put_away(name, patience, spec)
                    pool = self._pools[name]
            await pool.wait_ready(patience)
            # Who loads a model is about to speak.
            self._quiet_since[name] = monotonic()
        return self.state(name)

    async def unload(self, name: str, patience: float = 60.0) -> ModelState:
        """Let the turns of a model finish, then end its processes.

        Raises UnknownBackend, BusyError when its turns take longer than ``patience``.
        """
        self._pool(name)
        async with self._busy[name]:
            await self._put_away(name, patience, self._pools[name].spec)
        return self.state(name)

    async def _put_away(self, name: str, patience: float, spec: WorkerSpec) -> None:
        """End its processes. The next turn starts those of ``spec``."""
        pool = self._pools[name]
        if not pool.is_started:
            self._pools[name] = self._make(spec, pool)
            return
        self._unloading.add(name)
        try:
            async with asyncio.timeout(patience):
                while self._turns_on(pool):
                    await asyncio.sleep(_POLL)
            # Nothing is awaited between the last look and this: no turn can begin on the old one.
            self._pools[name] = self._make(spec, pool)
            await pool.stop()
        except TimeoutError:
            raise BusyError(
                f"{name} still speaks {self._turns_on(pool)} turns after {patience:g} seconds; "
                "try again when they are over"
            ) from None
        finally:
            self._unloading.discard(name)
        logger.info("%s is unloaded", name)

    def is_idle(self, name: str) -> bool:
        """Whether nobody has spoken with a model for long, as far as earlier looks can tell."""
        pool = self._pools[name]
        # Turns may be shorter than the time between two looks.
        spoken = pool, pool.submitted
        if not pool.is_ready or self._turns_on(pool) or self._spoken.get(name) != spoken:
            self._spoken[name] = spoken
            self._quiet_since[name] = monotonic()
        return monotonic() - self._quiet_since[name] >= self._idle_unload

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK, self._idle_unload / 4))
            for name in list(self._pools):
                # What is being loaded or unloaded is not idle, and would be waited for here.
                if not self.is_idle(name) or self._busy[name].locked():
                    continue
                try:
                    await self.unload(name, patience=1.0)
                except VoiceServerError as exc:
                    logger.info("%s is not unloaded: %s", name, exc)

    def _pool(self, name: str) -> WorkerPool:
        try:
            return self._pools[name]
        except KeyError:
            raise UnknownBackend(
                f"no backend named {name[:80]!r} is running{suggest(name, self._pools)}"
            ) from None


def _resized(spec: WorkerSpec, size: str) -> WorkerSpec:
    """The spec with a model of another size: in the model's name if one stands there."""
    if not _SIZE.fullmatch(size):
        raise RequestError(
            f"model_size › expected such as 1.7B or 0.6B, not {size[:40]!r}", code="bad_model_size"
        )
    options: dict[str, Any] = dict(spec.options)
    model = options.get("model")
    if isinstance(model, str) and _SIZE.search(model):
        options["model"] = _SIZE.sub(size, model, count=1)
    elif "model_size" in options:
        options["model_size"] = size
    else:
        raise RequestError(
            f"{spec.backend} has one size only; leave model_size out", code="bad_model_size"
        )
    return dataclasses.replace(spec, options=options)
