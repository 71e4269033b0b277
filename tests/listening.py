"""A listener for tests: a Sink that keeps what it hears, and pools of real workers to hear."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from voice_server.core.errors import VoiceServerError
from voice_server.core.restart import RestartPolicy
from voice_server.core.schedule import NOT_STARTED
from voice_server.workers.job import Job
from voice_server.workers.pool import WorkerPool
from voice_server.workers.process import WorkerSpec

BACKENDS = Path(__file__).resolve().parent.parent / "backends"
LONG = 60.0  # for what must happen, on a machine that is busy with something else


class Listener:
    """Keeps everything its job says, and checks what holds for every job."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.word_list: list[list[int]] = []
        self.starts = 0
        self.samples: int | None = None
        self.timing: Mapping[str, float] = {}
        self.error: VoiceServerError | None = None
        self.on_audio: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None
        self._over = asyncio.Event()
        self._heard = asyncio.Event()

    def started(self) -> None:
        assert not self.is_over
        self.starts += 1

    def audio(self, pcm: bytes) -> None:
        assert self.starts == 1
        assert not self.is_over
        self.pcm += pcm
        self._heard.set()
        self.on_audio()

    def words(self, words: list[list[int]]) -> None:
        assert not self.is_over
        self.word_list += words

    def done(self, samples: int, timing: Mapping[str, float]) -> None:
        assert not self.is_over
        self.samples, self.timing = samples, timing
        self._over.set()
        self.on_end()

    def failed(self, error: VoiceServerError) -> None:
        assert not self.is_over
        self.error = error
        self._over.set()
        self.on_end()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def end(self) -> bytes:
        """All the PCM, when the job is done. Raises the error it failed with."""
        await asyncio.wait_for(self._over.wait(), LONG)
        if self.error is not None:
            raise self.error
        assert self.samples == len(self.pcm) // 2
        return bytes(self.pcm)

    async def failure(self) -> VoiceServerError:
        """The error, when the job has failed."""
        await asyncio.wait_for(self._over.wait(), LONG)
        assert self.error is not None, "it was spoken to its end"
        assert self.error.delivered_samples == len(self.pcm) // 2
        return self.error

    async def sound(self) -> None:
        """Return when the first PCM has come."""
        await asyncio.wait_for(self._heard.wait(), LONG)


def job(listener: Any, text: str | None, **options: Any) -> Job:
    """A job with what tests do not care about filled in."""
    voice = options.pop("voice", {})
    options.setdefault("due", lambda: NOT_STARTED)
    return Job(
        listener, voice, options.pop("params", {}), options.pop("seed", 0), text=text, **options
    )


def say(pool: WorkerPool, text: str | None, **options: Any) -> Listener:
    """Submit a job and return who hears it."""
    listener = Listener()
    pool.submit(job(listener, text, **options))
    return listener


def spec(backend: str, **settings: Any) -> WorkerSpec:
    """One of the backends of this repository, run by this interpreter."""
    entry = settings.pop("entry", BACKENDS / backend / "backend.py")
    return WorkerSpec(backend, Path(sys.executable), entry, **settings)


@asynccontextmanager
async def pool_of(
    backend: str | WorkerSpec,
    size: int = 1,
    *,
    wait: bool = True,
    spare: int = 0,
    patience: float = 30.0,
    restart: RestartPolicy | None = None,
    **settings: Any,
) -> AsyncIterator[WorkerPool]:
    """A started pool, stopped at the end whatever happens."""
    of = spec(backend, **settings) if isinstance(backend, str) else backend
    pool = WorkerPool(of, size, spare=spare, patience=patience, restart=restart)
    try:
        await asyncio.wait_for(pool.start(wait=wait), LONG)
        yield pool
    finally:
        await asyncio.wait_for(pool.stop(), LONG)


async def until(is_met: Callable[[], bool], what: str = "") -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(LONG):
        while not is_met():
            await asyncio.sleep(0.005)


def pids(pool: WorkerPool) -> list[int]:
    """Of the workers that are ready."""
    return [w["pid"] for w in pool.snapshot()["workers"] if w["state"] == "ready"]


def living(pool: WorkerPool) -> list[int]:
    """Of all workers, whatever they do."""
    return [w["pid"] for w in pool.snapshot()["workers"]]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, bounded."""
    asyncio.run(asyncio.wait_for(test, 100.0))
