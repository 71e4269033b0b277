"""The one catalogue of voices: every door adds to it, every door that speaks asks it.

    door ─► create, update, delete ─► files ─► row (acknowledged) ─► memory ─► listeners
    turn ─► resolve ──────────────────────────────────────────────► memory

All voices are held in memory, so that a turn finds its voice without waiting for anything. One
process owns a data folder (``ownership``) and cleans it up; others may change voices beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from voice_server.core.errors import Conflict, NotFound
from voice_server.core.voices import (
    Problem,
    Sample,
    Voice,
    VoiceIndex,
    check_voice_id,
    folded,
    resolve,
)
from voice_server.storage import voice_rows
from voice_server.storage.borrowed import Borrowed
from voice_server.storage.database import Database, sqlite_url
from voice_server.storage.timestamps import now
from voice_server.storage.voice_files import CLOCK_SLACK, NewSample, VoiceFiles
from voice_worker.backend import BackendInfo

logger = logging.getLogger(__name__)

Listener = Callable[[str, Voice | None], None]
T = TypeVar("T")


class Catalogue:
    """All voices. Used from one event loop. ``load`` it once; without that nothing is stored yet.

    ``problems`` are files that should have been voices, by path. ``prompts_used``: when each
    folder for prepared prompts was last asked for. ``is_owner``: this process owns the folder.
    ``version`` counts the changes that it has seen. ``borrowed``: recordings that are spoken with.
    """

    def __init__(
        self, data_dir: Path, *, database: Database | None = None, voices_dir: Path | None = None
    ) -> None:
        # Workers run elsewhere: what they are told are whole paths.
        self.data_dir = data_dir = data_dir.absolute()
        self.is_owner = False
        self.version = 0
        self.prompts_used: dict[str, float] = {}
        self._cache = str(data_dir / "prompts")
        self.database = database or Database(sqlite_url(data_dir / "voice_server.db"))
        self.problems: dict[str, Problem] = {}
        self._files = VoiceFiles(voices_dir or data_dir / "voices")
        self.borrowed = Borrowed(self._files)
        self._index = VoiceIndex()
        self._sample_owner: dict[str, str] = {}
        self._listeners: list[Listener] = []
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._claimed_names: set[str] = set()
        self._changing: set[asyncio.Future[Any]] = set()
        self._reconciling: asyncio.Task[None] | None = None
        self._lent: Counter[str] = Counter()

    # -- asking ----------------------------------------------------------------------------------

    def resolve(
        self,
        name: str | None,
        backend: str,
        info: BackendInfo,
        *,
        default: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """What a worker of ``backend`` is told for this name; see ``core.voices.resolve``."""
        wire = resolve(
            name,
            backend,
            info,
            self._index,
            default=default,
            aliases=aliases,
            cache=self._cache,
        )
        if "cache" in wire:
            self.prompts_used[wire["cache"]] = time.time()
        return wire

    def get(self, voice_id: str) -> Voice:
        """The voice of exactly this id. Raises UnknownVoice."""
        voice = self._index.get(voice_id)
        if voice is None:
            raise voice_rows.unknown_voice(voice_id)
        return voice

    def find(self, name: str) -> Voice:
        """The voice of this id, or the only one of this name. Raises UnknownVoice."""
        return self._index.get(name) or self._index.named(name) or self.get(name)

    def voices(self) -> Sequence[Voice]:
        """All voices, newest first."""
        if not self._lent:
            return self._index.ordered()
        return [voice for voice in self._index.ordered() if voice.id not in self._lent]

    def sample(self, sample_id: str) -> tuple[Voice, Sample]:
        """The sample of this id and its voice. Raises NotFound."""
        voice = self._index.get(self._sample_owner.get(sample_id, ""))
        for sample in voice.samples if voice else ():
            if voice and sample.id == sample_id:
                return voice, sample
        raise NotFound(f"Sample {sample_id[:80]!r} not found", code="unknown_sample")

    def __contains__(self, voice_id: str) -> bool:
        return voice_id in self._index

    def __len__(self) -> int:
        return len(self._index) - len(self._lent)

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(voice_id, voice)`` after each change; a deletion has no voice."""
        self._listeners.append(listener)

    # -- starting --------------------------------------------------------------------------------

    async def load(self, *, is_owner: bool = False) -> None:
        """Take every stored voice into memory. The owner of the folder also sweeps up after a
        crash, in the background; to others, a file without a row may be what somebody writes.
        """
        self.is_owner = is_owner
        await asyncio.to_thread(self.data_dir.mkdir, parents=True, exist_ok=True)
        started = time.time() - CLOCK_SLACK
        for voice in await voice_rows.load(self.database, self._files):
            self._put(voice)
        if is_owner:
            self._reconciling = asyncio.create_task(self._reconcile(started))

    async def refresh(self) -> None:
        """Take over what another process, such as the command line, has changed."""
        before = {voice.id: voice for voice in self._index if voice.id not in self._lent}
        changed: set[str] = set()

        def note(voice_id: str, _: Voice | None) -> None:
            changed.add(voice_id)

        self._listeners.append(note)
        try:
            stored = {v.id: v for v in await voice_rows.load(self.database, self._files)}
        finally:
            self._listeners.remove(note)
        # What was changed here in the meantime is newer than what was read.
        for voice_id in (before.keys() | stored.keys()) - changed:
            old, new = before.get(voice_id), stored.get(voice_id)
            if new is not None:
                if new != old:
                    self._put(new)
            elif old is not None and old.kind != "dropped":
                self._discard(voice_id)

    async def close(self) -> None:
        """Close the database, once what was begun is carried through. The voices in memory can
        still be asked for.
        """
        await asyncio.gather(*self._changing, return_exceptions=True)
        if self._reconciling is not None:
            await self._reconciling
        await self.borrowed.finish()
        await self.database.close()

    async def _reconcile(self, started: float) -> None:
        known = {voice.id: _file_names(voice) for voice in self._index if voice.kind != "dropped"}
        try:
            removed, missing = await asyncio.to_thread(self._files.sweep, known, started)
        except OSError as exc:
            logger.warning("the folder of voices could not be looked through: %s", exc)
            return
        if removed:
            logger.info("removed %d files of voices that were never finished", removed)
        for name in sorted(missing):
            voice = self._index.get(name.partition("/")[0])
            if voice is not None and name.partition("/")[2] in _file_names(voice):
                # The row stays: the folder may be on a disk that is not there just now.
                path = str(self._files.root / name)
                self.problems[path] = Problem(
                    path,
                    f"voice {voice.id} needs this file: restore it, or delete the voice",
                    "file_missing",
                )
        if missing:
            logger.error("%d files of voices are missing, such as %s", len(missing), min(missing))

    # -- changing --------------------------------------------------------------------------------

    async def create(
        self, voice: Voice, samples: Iterable[NewSample] = (), *, is_name_unique: bool = False
    ) -> Voice:
        """Store a new voice. ``created_at`` and ``updated_at`` are set if they are empty.

        Raises Conflict (``voice_exists``, or ``name_taken`` where names must be unique),
        StorageFull, RequestError for an id that is none.
        """
        check_voice_id(voice.id)
        return await self._finished(self._create(voice, tuple(samples), is_name_unique))

    async def replace(self, voice: Voice, samples: Iterable[NewSample]) -> Voice:
        """Store a voice over the one of its id, if there is one: both files and row, or neither."""
        check_voice_id(voice.id)
        return await self._finished(self._put_over(voice, tuple(samples)))

    async def update(self, voice_id: str, *, is_name_unique: bool = False, **changes: Any) -> Voice:
        """Change fields of a stored voice. Raises UnknownVoice, Conflict, StorageFull."""
        return await self._finished(self._update(voice_id, is_name_unique, changes))

    async def delete(self, voice_id: str) -> Voice:
        """Remove a stored voice and its files. Raises UnknownVoice, Conflict for a dropped one."""
        return await self._finished(self._delete(voice_id))

    async def add_sample(self, voice_id: str, new: NewSample) -> Sample:
        """Add a sample to a stored voice. Raises UnknownVoice, Conflict, StorageFull."""
        return await self._finished(self._add_sample(voice_id, new))

    async def remove_sample(self, sample_id: str) -> Voice:
        """Remove a sample. Raises NotFound."""
        return await self._finished(self._remove_sample(sample_id))

    def put_dropped(self, voice: Voice) -> None:
        """Add or replace a voice that is a file in the samples folder. Raises Conflict when a
        voice made through another door has its id.
        """
        there = self._index.get(voice.id)
        if there is not None and there.kind != "dropped":
            raise Conflict(
                f"voice {voice.id!r} exists already; rename the file", code="voice_exists"
            )
        self._put(voice)

    def discard_dropped(self, voice_id: str) -> None:
        """Take out a voice whose file is gone."""
        there = self._index.get(voice_id)
        if there is not None and there.kind == "dropped":
            self._discard(voice_id)

    @contextlib.contextmanager
    def lent(self, voice: Voice) -> Iterator[Voice]:
        """While this is open, ``voice`` can be spoken, though it is neither stored nor listed.

        Its id is one that nobody else has; lending it twice at once is possible.
        """
        self._lent[voice.id] += 1
        self._index.put(voice)
        try:
            yield voice
        finally:
            self._lent[voice.id] -= 1
            if not self._lent[voice.id]:
                del self._lent[voice.id]
                self._index.discard(voice.id)

    async def _create(self, voice: Voice, new: tuple[NewSample, ...], is_unique: bool) -> Voice:
        async with self._lock(voice.id):
            return await self._insert(voice, new, is_unique)

    async def _insert(self, voice: Voice, new: tuple[NewSample, ...], is_unique: bool) -> Voice:
        if voice.id in self._index:
            raise Conflict(
                f"voice {voice.id!r} exists already; choose another name, or delete it first",
                code="voice_exists",
            )
        with self._name_claimed(voice, is_unique):
            written = await asyncio.to_thread(self._files.write, voice.id, new)
            stored = _stamped(replace(voice, samples=written))
            try:
                async with self.database.write() as connection:
                    await voice_rows.insert(connection, stored)
            except BaseException:
                await asyncio.to_thread(self._files.remove, voice.id, written)
                raise
            self._put(stored)
            return stored

    async def _put_over(self, voice: Voice, new: tuple[NewSample, ...]) -> Voice:
        async with self._lock(voice.id):
            if voice.id not in self._index:
                return await self._insert(voice, new, False)
            before = self._stored(voice.id)
            written = await asyncio.to_thread(self._files.write, voice.id, new)
            stored = _stamped(replace(voice, samples=written))
            try:
                async with self.database.write() as connection:
                    await voice_rows.replace(connection, stored)
            except BaseException:
                await asyncio.to_thread(self._files.remove, voice.id, written)
                raise
            self._put(stored)
            await self.borrowed.remove(voice.id, before.samples)
            return stored

    async def _update(self, voice_id: str, is_name_unique: bool, changes: dict[str, Any]) -> Voice:
        async with self._lock(voice_id):
            wanted = replace(self._stored(voice_id), **changes)
            with self._name_claimed(wanted, is_name_unique):
                return await self._change(voice_id, lambda v: replace(v, **changes))

    async def _delete(self, voice_id: str) -> Voice:
        async with self._lock(voice_id):
            voice = self._stored(voice_id)
            async with self.database.write() as connection:
                await voice_rows.delete(connection, voice_id)
            self._discard(voice_id)
            await self.borrowed.remove(voice_id, voice.samples)
            return voice

    async def _add_sample(self, voice_id: str, new: NewSample) -> Sample:
        async with self._lock(voice_id):
            self._stored(voice_id)
            written = await asyncio.to_thread(self._files.write, voice_id, [new])
            try:
                await self._change(voice_id, lambda v: replace(v, samples=(*v.samples, *written)))
            except BaseException:
                await asyncio.to_thread(self._files.remove, voice_id, written)
                raise
            return written[0]

    async def _remove_sample(self, sample_id: str) -> Voice:
        voice_id = self.sample(sample_id)[0].id
        async with self._lock(voice_id):
            voice, gone = self.sample(sample_id)
            self._stored(voice.id)

            def without(voice: Voice) -> Voice:
                kept = tuple(sample for sample in voice.samples if sample.id != sample_id)
                return replace(voice, samples=kept)

            after = await self._change(voice_id, without)
            await self.borrowed.remove(voice.id, [gone])
            return after

    async def _change(self, voice_id: str, change: Callable[[Voice], Voice]) -> Voice:
        async with self.database.write() as connection:
            voice = await voice_rows.change(connection, voice_id, self._files, change)
        self._put(voice)
        return voice

    async def _finished(self, work: Awaitable[T]) -> T:
        """Once begun, a change is carried through, even if who asked for it goes away."""
        task = asyncio.ensure_future(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return await asyncio.shield(task)

    def _lock(self, voice_id: str) -> asyncio.Lock:
        return self._locks.setdefault(voice_id, asyncio.Lock())

    def _stored(self, voice_id: str) -> Voice:
        voice = self.get(voice_id)
        if voice_id in self._lent:
            raise voice_rows.unknown_voice(voice_id)
        if voice.kind == "dropped":
            raise Conflict(
                f"voice {voice_id!r} is a file in the samples folder; change or remove the file",
                code="voice_is_a_file",
            )
        return voice

    @contextlib.contextmanager
    def _name_claimed(self, voice: Voice, is_unique: bool) -> Iterator[None]:
        """Until this is over, nobody else takes its name where names must be unique."""
        name = folded(voice.name)
        is_claimed = name in self._claimed_names
        if is_unique and (is_claimed or self._index.has_name(voice.name, besides=voice.id)):
            raise Conflict(
                f"a voice named {voice.name[:80]!r} exists already; choose another name",
                code="name_taken",
            )
        self._claimed_names.add(name)
        try:
            yield
        finally:
            self._claimed_names.discard(name)

    # -- memory ----------------------------------------------------------------------------------

    def _put(self, voice: Voice) -> None:
        before = self._index.get(voice.id)
        for sample in before.samples if before else ():
            self._sample_owner.pop(sample.id, None)
        self._index.put(voice)
        self._sample_owner.update((sample.id, voice.id) for sample in voice.samples)
        self._tell(voice.id, voice)

    def _discard(self, voice_id: str) -> None:
        voice = self._index.get(voice_id)
        for sample in voice.samples if voice else ():
            self._sample_owner.pop(sample.id, None)
        self._index.discard(voice_id)
        self._tell(voice_id, None)

    def _tell(self, voice_id: str, voice: Voice | None) -> None:
        self.version += 1
        for listener in self._listeners:
            try:
                listener(voice_id, voice)
            except Exception:
                # A listener is somebody else's affair; the catalogue has changed all the same.
                logger.exception("a listener failed on voice %s", voice_id)


def _stamped(voice: Voice) -> Voice:
    at = now()
    return replace(voice, created_at=voice.created_at or at, updated_at=voice.updated_at or at)


def _file_names(voice: Voice) -> set[str]:
    paths = [path for s in voice.samples for path in (s.path, s.original) if path]
    return {Path(path).name for path in paths}
