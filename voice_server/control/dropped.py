"""Makes every recording in the samples folder a voice named after its file.

    change in the folder ─► look at all of it ─► still being copied? ─yes─► look again soon
                                                       └─no─► decode ─► catalogue, or a problem

What was decoded is remembered by name, size and time, so that a restart decodes nothing. Several
processes may look at one folder: they decode to the same files, and the owner of the data folder
alone removes any, once nobody has wanted them for an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voice_server.audio.decode import Limits
from voice_server.control.samples import check_transcript, prepare_sample
from voice_server.core.errors import StorageFull, VoiceServerError
from voice_server.core.voices import Problem, Sample, Voice, slug_from_name
from voice_server.storage.atomic import write_atomic
from voice_server.storage.catalogue import Catalogue

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset(
    ".wav .mp3 .flac .m4a .aac .ogg .opus .mp4 .mov .avi .webm .mkv .flv".split()
)
_LOOK_AGAIN = 0.15
# What found no room, or no leave to be read, waits as long at least, and longer than it took.
_TRY_AGAIN, _TIMES_AS_LONG = 3.0, 3
# A file that is older than this when it is first seen was not dropped just now.
_RECENT = 1.0
# A file is whole when it has not changed for as long as it was seen changing, within these: who
# copies slowly pauses long.
_QUIET, _LONGEST_QUIET = 0.5, 3.0
_MAX_TRANSCRIPT_BYTES = 64 * 1024
# From the end of a watch to the next one; twice as long each time that one ends soon, to the last.
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# What was decoded this recently may be in the memory of a process that has not written it down.
_WANTED = 3_600.0

Signature = list[int]


@dataclasses.dataclass(slots=True)
class _File:
    """One recording in the folder: what it looked like, and what became of it."""

    signature: Signature
    sample: Sample | None = None
    problem: Problem | None = None

    @property
    def may_pass(self) -> bool:
        """What it failed for was not in the file: room on the disk, or leave to read it."""
        why = self.problem.code if self.problem else ""
        return self.sample is None and why in (StorageFull.code, "unreadable")


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """How a file looks, and when it began and ceased to change so, on the monotonic clock."""

    signature: Signature
    began: float
    changed: float

    def is_settled(self, now: float) -> bool:
        quiet = min(max(_QUIET, self.changed - self.began), _LONGEST_QUIET)
        return now - self.changed >= quiet


class DroppedVoices:
    """The samples folder as part of the catalogue. Create, ``start``, later ``stop``.

    ``scanned`` is set once everything that was there at the start is a voice or a problem, but for
    what is still being copied some seconds later.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, limits: Limits | None = None) -> None:
        self.folder = folder
        self.scanned = asyncio.Event()
        self._catalogue = catalogue
        self._limits = limits or Limits(min_seconds=1.0)
        self._cache = catalogue.data_dir / "dropped"
        self._files: dict[str, _File] = {}
        self._ids: dict[str, str] = {}
        self._problems: set[str] = set()
        self._seen: dict[str, _Seen] = {}
        self._try_again = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Begin to watch, in a task of its own; a folder that is missing is made."""
        self._task = asyncio.create_task(self._run(), name="dropped voices")

    async def stop(self) -> None:
        """Stop watching; the voices stay in the catalogue."""
        self._stop.set()
        if self._task:
            await self._task

    async def scan(self) -> None:
        """Look at the folder until nothing in it is being written, and take over what changed."""
        began = time.monotonic()
        while await self._look() and not self._stop.is_set():
            if time.monotonic() - began > _LONGEST_QUIET:
                self.scanned.set()
            await asyncio.sleep(_LOOK_AGAIN)

    async def _run(self) -> None:
        from watchfiles import awatch

        pause = _PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._open)
                # A look every few seconds finds what a network file system does not announce.
                watch = awatch(
                    self.folder,
                    watch_filter=None,
                    debounce=100,
                    step=30,
                    recursive=False,
                    stop_event=self._stop,
                    yield_on_timeout=True,
                    rust_timeout=5_000,
                )
                # The watch begins before the first look, so that nothing falls between the two.
                change = asyncio.ensure_future(anext(watch))
                await asyncio.sleep(0)
                await self.scan()
                self.scanned.set()
                await change
                await self.scan()
                async for _ in watch:
                    await self.scan()
            except StopAsyncIteration:
                return
            except Exception as exc:
                # watchfiles ends at a file whose name is not UTF-8, in a group of errors.
                cause = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
                logger.warning("watching the folder %s again, after: %s", self.folder, cause)
                self.scanned.set()
                is_new = time.monotonic() - began > _LONGEST_PAUSE
                pause = _PAUSE if is_new else min(2 * pause, _LONGEST_PAUSE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cache.mkdir(parents=True, exist_ok=True)
        if not self._files:
            self._files = self._remembered()
            if self._catalogue.is_owner:
                self._clean()

    def _clean(self) -> None:
        """Remove what is decoded of files that are not there any more."""
        kept = {Path(f.sample.path).name for f in self._files.values() if f.sample}
        for path in self._cache.iterdir():
            if path.name != "index.json" and path.name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _WANTED:
                        path.unlink()

    async def _look(self) -> bool:
        """One look at the folder. True when a file in it is still being written."""
        there = await asyncio.to_thread(self._list)
        now = time.monotonic()
        self._seen = {name: self._see(name, there[name], now) for name in there}
        is_due = now >= self._try_again
        new = {
            name
            for name, signature in there.items()
            if name not in self._files
            or self._files[name].signature != signature
            or (is_due and self._files[name].may_pass)
        }
        growing = {name for name in new if not self._seen[name].is_settled(now)}
        changed = sorted(new - growing)
        for start in range(0, len(changed), os.cpu_count() or 1):
            some = changed[start : start + (os.cpu_count() or 1)]
            made = await asyncio.gather(
                *(asyncio.to_thread(self._make, name, there[name]) for name in some)
            )
            self._files.update(zip(some, made, strict=True))
            self._publish(there)
        if is_due and changed:
            ended = time.monotonic()
            self._try_again = ended + max(_TRY_AGAIN, _TIMES_AS_LONG * (ended - now))
        for name in set(self._files) - set(there):
            del self._files[name]
            changed.append(name)
        self._publish(there)
        if any(name not in self._files or not self._files[name].may_pass for name in changed):
            await asyncio.to_thread(self._remember)
        return bool(growing)

    def _see(self, name: str, signature: Signature, now: float) -> _Seen:
        before = self._seen.get(name)
        if before is None:
            is_recent = time.time() - max(signature[1], signature[3]) / 1e9 < _RECENT
            since = now if is_recent else now - _LONGEST_QUIET
            return _Seen(signature, since, since)
        if before.signature == signature:
            return before
        return _Seen(signature, now if before.is_settled(now) else before.began, now)

    def _list(self) -> dict[str, Signature]:
        """Each recording: size and mtime in ns of it, then of its transcript (0 without one)."""
        there: dict[str, Signature] = {}
        texts: dict[str, Signature] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                stem, extension = os.path.splitext(entry.name)
                if entry.name.startswith(".") or extension.lower() not in (*EXTENSIONS, ".txt"):
                    continue
                try:
                    status = entry.stat()
                except OSError:
                    continue  # It went away, or is a link to nowhere.
                if not stat.S_ISREG(status.st_mode):
                    continue
                if extension.lower() == ".txt":
                    texts[stem] = [status.st_size, status.st_mtime_ns]
                else:
                    there[entry.name] = [status.st_size, status.st_mtime_ns]
        return {
            name: signature + texts.get(os.path.splitext(name)[0], [0, 0])
            for name, signature in there.items()
        }

    def _make(self, name: str, signature: Signature) -> _File:
        """Decode one file, in a thread."""
        path = self.folder / name
        made = _File(signature)
        if not _is_text(name):
            shown = os.fsencode(path).decode(errors="replace")
            reason = "its name is not UTF-8; rename it"
            made.problem = Problem(shown, reason, "bad_name")
            logger.warning("%s: %s", shown, reason)
            return made
        try:
            transcript = self._transcript(path) if signature[3] else None
        except VoiceServerError as exc:
            transcript = None
            made.problem = Problem(str(path.with_suffix(".txt")), str(exc), exc.code)
        except OSError as exc:
            transcript = None
            made.problem = Problem(
                str(path.with_suffix(".txt")), f"it cannot be read: {exc.strerror}", "unreadable"
            )
        try:
            prepared, _ = prepare_sample(path, transcript, self._limits)
            wav = self._cache / f"{prepared.sha256[:32]}.wav"
            try:
                os.utime(wav)
            except FileNotFoundError:
                write_atomic(wav, prepared.wav)
        except VoiceServerError as exc:
            made.problem = Problem(str(path), str(exc), exc.code)
        except OSError as exc:
            made.problem = Problem(str(path), f"it cannot be read: {exc.strerror}", "unreadable")
        else:
            made.sample = Sample(
                id=prepared.sha256[:16],
                path=str(wav),
                sha256=prepared.sha256,
                transcript=prepared.transcript,
                duration=prepared.duration,
                sample_rate=prepared.sample_rate,
                loudness=prepared.loudness,
                notes=prepared.notes,
                original=str(path),
            )
        if made.problem and made.problem != self._catalogue.problems.get(made.problem.path):
            logger.warning("%s: %s", made.problem.path, made.problem.reason)
        return made

    def _transcript(self, path: Path) -> str | None:
        for extension in (".txt", ".TXT"):
            text = path.with_suffix(extension)
            if text.exists():
                with open(text, "rb") as file:
                    data = file.read(_MAX_TRANSCRIPT_BYTES)
                return check_transcript(data.decode("utf-8-sig", "surrogateescape"))
        return None

    def _publish(self, there: dict[str, Signature]) -> None:
        """Make the catalogue show what the folder holds now."""
        ids: dict[str, str] = {}
        problems: dict[str, Problem] = {}
        # Who came first keeps the name.
        for name in self._files:
            file = self._files[name]
            if name not in there:
                continue
            if file.problem:
                problems[file.problem.path] = file.problem
            if file.sample is None:
                continue
            voice = _voice(name, file)
            path = str(self.folder / name)
            if voice.id in ids:
                problems[path] = Problem(
                    path, f"{ids[voice.id]} has the same name; rename one of them", "name_taken"
                )
                continue
            try:
                if voice.id not in self._catalogue or self._catalogue.get(voice.id) != voice:
                    self._catalogue.put_dropped(voice)
                    logger.info("voice %s is %s", voice.id, name)
                ids[voice.id] = name
            except VoiceServerError as exc:
                problems[path] = Problem(path, str(exc), exc.code)
        for gone in self._ids.keys() - ids.keys():
            self._catalogue.discard_dropped(gone)
            logger.info("voice %s is gone with its file", gone)
        self._ids = ids
        for path in self._problems - problems.keys():
            self._catalogue.problems.pop(path, None)
        self._problems = set(problems)
        self._catalogue.problems.update(problems)

    def _remember(self) -> None:
        """Write down what was decoded; a failure costs time at the next start, nothing else."""
        rows = {name: dataclasses.asdict(file) for name, file in self._files.items()}
        try:
            write_atomic(self._cache / "index.json", json.dumps(rows).encode())
        except (OSError, VoiceServerError) as exc:
            logger.warning("the index of dropped voices was not written: %s", exc)

    def _remembered(self) -> dict[str, _File]:
        try:
            rows: dict[str, Any] = json.loads((self._cache / "index.json").read_bytes())
            files = {name: _file(row) for name, row in rows.items()}
        except (OSError, ValueError, TypeError, KeyError):
            return {}
        return {
            name: file
            for name, file in files.items()
            if file.sample and not file.problem and Path(file.sample.path).is_file()
        }


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8, so that it can be told to anybody."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file(row: dict[str, Any]) -> _File:
    sample = row["sample"]
    if sample is not None:
        sample = Sample(**{**sample, "notes": tuple(sample["notes"])})
    problem = Problem(**row["problem"]) if row["problem"] else None
    return _File(signature=[int(n) for n in row["signature"]], sample=sample, problem=problem)


def _voice(name: str, file: _File) -> Voice:
    stem = os.path.splitext(name)[0]
    written = datetime.fromtimestamp(file.signature[1] / 1e9, UTC)
    created = written.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert file.sample is not None
    return Voice(
        id=slug_from_name(stem),
        name=stem,
        kind="dropped",
        display_name=stem,
        samples=(file.sample,),
        source="voice_samples",
        created_at=created,
        updated_at=created,
    )
