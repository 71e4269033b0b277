"""Keeps the wanted number of workers alive: starts, restarts, spares, rolling replacement, checks.

Says nothing about jobs; the pool, which owns it, is told which workers come and go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from voice_server.core.errors import NotReady, WorkerStartError
from voice_server.core.restart import BreakerState, Restart, RestartPolicy
from voice_server.workers.guardian import Guardian
from voice_server.workers.process import WorkerSpec
from voice_server.workers.scratch import remove_abandoned
from voice_server.workers.worker import Owner, Worker, WorkerState

logger = logging.getLogger(__name__)

SWEEP: Final = 0.05
# The event loop may have been held up, or the whole machine asleep: that is no worker's fault.
LONGEST_STEP: Final = 0.25
MEMORY_INTERVAL: Final = 1.0
UNKILLABLE: Final = 10.0  # a process may sit in a driver's call for some time


class Supervisor:
    """``workers``: all that are not gone. ``size`` of them work, ``spare`` more are warm.

    ``owner`` is told by the workers themselves; the pool passes ``ready`` and ``gone`` on to here.
    ``on_sweep`` is called every 50 ms.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        size: int,
        spare: int,
        owner: Owner,
        on_sweep: Callable[[float], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self.spec = spec
        self.size = size
        self.spare = spare
        self.workers: list[Worker] = []
        self.restarts: Counter[str] = Counter()  # by cause
        self.last_error = ""
        self._owner = owner
        self._on_sweep = on_sweep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._restart = Restart(policy)
        self._guardian = Guardian()
        self._extra = 0  # workers wanted beyond size and spare, while others are replaced
        self._is_stopping = False
        self._replacing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # some worker became ready or went
        self._swept_at = self._memory_checked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start all workers at once, and the sweep that checks them."""
        self._loop = asyncio.get_running_loop()
        self._swept_at = self._memory_checked_at = self._loop.time()
        self._timer = self._loop.call_later(SWEEP, self._sweep)
        self._loop.run_in_executor(None, remove_abandoned, self.spec.env.get("TMPDIR"))
        self.tend()

    @property
    def breaker(self) -> BreakerState:
        return self._restart.state(self._now())

    @property
    def ready_workers(self) -> list[Worker]:
        return [w for w in self.workers if w.state is WorkerState.READY]

    @property
    def is_failing(self) -> bool:
        """Nobody is ready, and starts have failed more than once."""
        return not self.ready_workers and self._restart.failures_in_a_row > 1

    @property
    def next_start(self) -> float:
        """Loop time before which no worker is started."""
        return self._restart.next_start

    def tend(self) -> None:
        """Start the workers that are missing, as many as may start now; let the surplus go."""
        if self._is_stopping:
            return
        living = (WorkerState.STARTING, WorkerState.READY)
        alive = [w for w in self.workers if w.state in living]
        # A condemned worker may hold the GPU's memory until it is gone: its place is not free yet.
        # One that a driver keeps for ever has lost it.
        condemned = (w for w in self.workers if w.state is WorkerState.CONDEMNED)
        dying = sum(self._now() - w.condemned_at < UNKILLABLE for w in condemned)
        starting = sum(w.state is WorkerState.STARTING for w in alive)
        wanted = self.size + self.spare + self._extra
        _dismiss(alive, len(alive) - wanted)
        missing = wanted - len(alive) - dying
        while missing > 0 and self._restart.may_start(self._now(), starting):
            if not self._start_one():
                break
            missing -= 1
            starting += 1

    def ready(self, worker: Worker) -> None:
        """A worker has loaded its model."""
        self._restart.ready()
        self.last_error = ""
        working = sum(not w.is_spare for w in self.ready_workers)
        worker.is_spare = working > self.size + self._extra
        self._changed.set()
        self.tend()

    def proved(self) -> None:
        """A worker has finished a job."""
        self._restart.proved()

    def gone(self, worker: Worker) -> None:
        """A worker was reaped. A spare takes its place and another is started at once."""
        self.workers.remove(worker)
        self._guardian.forget(worker.pid)
        now = self._now()
        was_asked = worker.cause in ("stop", "restart", "memory")
        self.restarts[worker.cause] += 1
        if not worker.was_ready:
            if not was_asked:
                self.last_error = worker.failure_text()
                was_killed = worker.cause == "killed"
                self._restart.failed(now, self.last_error, was_killed=was_killed)
                logger.error("%s", self.last_error)
        elif not was_asked:
            is_barren = worker.finished == 0 and worker.was_used and worker.cause != "killed"
            self._restart.died(now, worker.failure_text(), is_barren=is_barren)
            self.last_error = worker.failure_text()
        self._promote()
        self._changed.set()
        self.tend()

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when as many workers as wanted are ready.

        Raises WorkerStartError when starts fail again and again, NotReady after ``timeout``.
        """
        try:
            async with asyncio.timeout(timeout):
                while len(self.ready_workers) < self.size:
                    if self.is_failing or self._is_stopping:
                        raise WorkerStartError(self.last_error or f"{self.spec.backend}: stopped")
                    await self._wait_for_change()
        except TimeoutError:
            reason = self.last_error or f"{self.spec.backend}: its workers are still loading"
            raise NotReady(reason) from None

    async def replace_all(self) -> None:
        """Replace each worker by a new one that is warm before the old one takes no more jobs.

        Returns when the old ones are gone. Raises WorkerStartError when a new one does not start;
        the old ones that are left go on.
        """
        for old in list(self.workers):
            if old.state is WorkerState.READY:
                await self._replace(old, "restart")
            elif old.state is WorkerState.STARTING:
                old.cause = "restart"
                old.stop()

    async def stop(self) -> None:
        """Ask every worker to go, kill those that do not, and return when all are reaped."""
        self._is_stopping = True
        self._changed.set()
        for worker in list(self.workers):
            worker.stop()
        try:
            async with asyncio.timeout(self.spec.stop_timeout + UNKILLABLE):
                while self.workers:
                    await self._wait_for_change()
        except TimeoutError:
            pids = [worker.pid for worker in self.workers]
            logger.error("%s: workers %s survive SIGKILL; leaving them", self.spec.backend, pids)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._guardian.close()

    async def _replace(self, old: Worker, cause: str) -> None:
        if not any(w.is_spare for w in self.ready_workers if w is not old):
            await self._start_another(old)
        if old.state is not WorkerState.READY:
            return  # it went by itself, and what was started for it is new
        old.cause = cause
        old.retire()
        self._promote()
        while old in self.workers:
            await self._wait_for_change()

    async def _start_another(self, old: Worker) -> None:
        """Have one worker more than usual, until one is ready that was not before."""
        others = set(self.ready_workers)
        # Failures of before do not count: this start may be the one with the remedy.
        failures = self._restart.failures_in_a_row
        self._extra += 1
        try:
            self.tend()
            while not any(w not in others for w in self.ready_workers):
                if old.state is not WorkerState.READY:
                    return
                if self._is_stopping:
                    raise WorkerStartError(f"{self.spec.backend}: the pool was stopped")
                has_failed = self._restart.failures_in_a_row > failures
                if has_failed or self.breaker is BreakerState.OPEN:
                    raise WorkerStartError(self.last_error or self._restart.reason)
                await self._wait_for_change()
        finally:
            self._extra -= 1

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _start_one(self) -> bool:
        try:
            worker = Worker(self.spec, self._owner)
        except WorkerStartError as exc:
            self.last_error = str(exc)
            self._restart.failed(self._now(), self.last_error)
            logger.error("%s", exc)
            self._changed.set()
            return False
        self.workers.append(worker)
        self._guardian.watch(worker.pid)
        return True

    def _promote(self) -> None:
        """Let spares work while fewer than ``size`` workers do."""
        ready = self.ready_workers
        working = sum(not w.is_spare for w in ready)
        for worker in ready:
            if working < self.size and worker.is_spare:
                worker.is_spare = False
                working += 1

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        dt, self._swept_at = min(now - self._swept_at, LONGEST_STEP), now
        self._timer = self._loop.call_later(SWEEP, self._sweep)
        for worker in list(self.workers):
            worker.check(dt)
        if (
            self.spec.memory_limit_mb is not None
            and now - self._memory_checked_at > MEMORY_INTERVAL
        ):
            self._memory_checked_at = now
            self._recycle(self.spec.memory_limit_mb)
        self.tend()
        self._on_sweep(now)

    def _recycle(self, limit: float) -> None:
        """Replace a worker that has grown too big, one at a time, when its jobs are over."""
        if self._replacing is not None and not self._replacing.done():
            return
        for worker in self.ready_workers:
            held = worker.process.resident_mb()
            # A model that is bigger than the limit from the start would be replaced for ever.
            if held is None or held < max(limit, 1.2 * worker.loaded_mb) or not worker.finished:
                continue
            logger.info(
                "%s: worker %d holds %.0f MB, more than %.0f: replacing it",
                *(self.spec.backend, worker.pid, held, limit),
            )
            self._replacing = asyncio.create_task(self._replace_grown(worker))
            return

    async def _replace_grown(self, worker: Worker) -> None:
        try:
            await self._replace(worker, "memory")
        except WorkerStartError as exc:
            logger.error("%s", exc)


def _dismiss(workers: list[Worker], surplus: int) -> None:
    """Let so many go, the youngest of those that do not work.

    One that was to be replaced may die while its replacement loads, which makes one too many; so
    does a replacement that is given up.
    """
    if surplus > 0:
        for worker in sorted(workers, key=lambda w: not w.is_lending)[-surplus:]:
            worker.retire()
