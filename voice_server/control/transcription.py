"""Speech to text by a worker like any engine: sound goes over as a path, text comes back as one.

The worker is started by the first request and goes when nobody has asked for a while, so that
its memory is there for speaking.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voice_server.core.errors import (
    BackendNotInstalled,
    BusyError,
    SynthesisFailed,
    VoiceServerError,
)
from voice_server.core.schedule import NOT_STARTED
from voice_server.storage.atomic import full_disk_told
from voice_server.workers.job import Job
from voice_server.workers.pool import WorkerPool

logger = logging.getLogger(__name__)

MAX_WAITING = 16


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. ``duration`` in seconds; ``segments`` as the worker tells them, each with
    ``start``, ``end``, ``text`` and, when asked for, ``words``.
    """

    text: str
    language: str
    duration: float
    segments: list[dict[str, Any]] = field(default_factory=list)


class Transcriber:
    """Makes texts of recordings. ``make_pool`` raises BackendNotInstalled where there is none."""

    def __init__(
        self,
        make_pool: Callable[[], WorkerPool],
        *,
        is_installed: Callable[[], bool] = lambda: True,
        idle: float = 300.0,
        load_patience: float = 120.0,
        patience: float = 600.0,
    ) -> None:
        self.is_installed = is_installed  # reads a few files
        self._make_pool = make_pool
        self._idle = idle
        self._load_patience = load_patience
        self._patience = patience
        self._pool: WorkerPool | None = None
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def text(self, wav: bytes, language: str | None = None) -> str:
        """The text of a WAV alone; see ``transcribe``."""
        return (await self.transcribe(wav, language)).text

    async def transcribe(
        self, wav: bytes, language: str | None = None, *, has_words: bool = False
    ) -> Transcript:
        """The text of a WAV (mono, 24 kHz), with words and their times if asked for.

        Raises BackendNotInstalled, NotReady, BusyError, SynthesisFailed with the worker's code.
        """
        if self._asked >= MAX_WAITING:
            raise BusyError("too many recordings wait to be transcribed; try again in a minute")
        self._asked += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            with tempfile.TemporaryDirectory(prefix="transcribe-") as folder:
                return await self._run(Path(folder), wav, language, has_words)
        finally:
            self._asked -= 1
            if not self._asked:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._idle, self._rest)

    async def stop(self) -> None:
        """End the worker."""
        if self._timer is not None:
            self._timer.cancel()
        self._rest()
        await asyncio.gather(*self._stopping)

    async def _run(
        self, folder: Path, wav: bytes, language: str | None, has_words: bool
    ) -> Transcript:
        if self._pool is None:
            self._pool = self._make_pool()
        pool = self._pool
        sound, answer = folder / "sound.wav", folder / "answer.json"
        with full_disk_told("the recording, to be transcribed,"):
            await asyncio.to_thread(sound.write_bytes, wav)
        await pool.wait_ready(self._load_patience)
        params = {"answer": str(answer), "words": has_words}
        if language:
            params["language"] = language
        finished = _Finished()
        job = Job(
            finished,
            {
                "samples": [{"path": str(sound), "transcript": None}],
                # A recording that kills its worker must not bring others into disrepute.
                "digest": hashlib.sha256(wav).hexdigest(),
            },
            params,
            0,
            text="transcribe",
            due=lambda: NOT_STARTED,
        )
        pool.submit(job)
        try:
            async with asyncio.timeout(self._patience):
                await finished.future
        except TimeoutError:
            raise SynthesisFailed(
                f"transcribing took more than {self._patience:g} seconds", code="worker_timeout"
            ) from None
        finally:
            pool.cancel(job)
        return await asyncio.to_thread(_read, answer)

    def _rest(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            logger.info("nobody transcribes: its worker goes")
            task = asyncio.create_task(pool.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)


class _Finished:
    """The sink of a job whose sound is of no interest."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def started(self) -> None:
        pass

    def audio(self, pcm: bytes) -> None:
        pass

    def words(self, words: list[list[int]]) -> None:
        pass

    def done(self, samples: int, timing: Mapping[str, float]) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def failed(self, error: VoiceServerError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _read(answer: Path) -> Transcript:
    try:
        told = json.loads(answer.read_bytes())
        return Transcript(
            text=str(told["text"]).strip(),
            language=str(told["language"]),
            duration=float(told["duration"]),
            segments=list(told["segments"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SynthesisFailed(f"the transcriber gave no answer that makes sense ({exc})") from None


def not_installed() -> WorkerPool:
    """For servers without a transcriber."""
    raise BackendNotInstalled("no transcriber is installed; run `cli.py backends install whisper`")
