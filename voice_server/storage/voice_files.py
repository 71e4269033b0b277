"""The recordings of the catalogue on disk.

    voices/<voice id>/<sample id>.wav              mono 24 kHz, what workers read
    voices/<voice id>/<sample id>.orig.<format>    as it was given, when that differs

Files are written before the row that names them and removed after it is gone, so a crash can
only leave files too many; ``sweep`` finds those. Blocking; called in threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voice_server.core.voices import Sample, is_voice_id
from voice_server.storage.atomic import TEMPORARY, full_disk_told, sync_folder, write_together

logger = logging.getLogger(__name__)

CLOCK_SLACK = 2.0
"""Seconds by which a file's time may be behind the clock: file systems keep a coarser one."""

# Only what bears a name that we give is ever removed: the folder may hold files of others.
_OURS = re.compile(
    re.escape(TEMPORARY)
    + r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.(wav|orig\.[a-z0-9]+)"
)


@dataclass(frozen=True, slots=True)
class NewSample:
    """A sample that is ready to be stored. ``wav``: mono, 24 kHz, int16, whole, with header.

    ``id`` is a UUID. ``duration`` (seconds), ``loudness`` (LUFS) and ``sha256`` are of ``wav``.
    ``original`` is the file as given and ``extension`` its format; b"" when ``wav`` is what was
    given.
    """

    id: str
    wav: bytes
    sha256: str
    duration: float
    sample_rate: int
    loudness: float
    notes: tuple[str, ...] = ()
    transcript: str | None = None
    original: bytes = b""
    extension: str = "wav"


class VoiceFiles:
    """The folder ``root`` with a folder for each voice. Ids must fit the grammar of ids."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, voice_id: str) -> Path:
        """Where the voice's recordings are."""
        if not is_voice_id(voice_id):
            raise ValueError(f"not a voice id: {voice_id!r}")
        return self.root / voice_id

    def wav(self, voice_id: str, sample_id: str) -> Path:
        """The file that workers read."""
        if not is_voice_id(sample_id):
            raise ValueError(f"not a sample id: {sample_id!r}")
        return self.folder(voice_id) / f"{sample_id}.wav"

    def write(self, voice_id: str, new: Iterable[NewSample]) -> tuple[Sample, ...]:
        """Write the samples, all or none. Raises StorageFull."""
        folder = self.folder(voice_id)
        written: list[Sample] = []
        files: dict[str, bytes] = {}
        is_new = not folder.exists()
        with full_disk_told(f"voice {voice_id}"):
            folder.mkdir(parents=True, exist_ok=True)
            if is_new:
                sync_folder(self.root)
        try:
            for sample in new:
                path = self.wav(voice_id, sample.id)
                original = path.with_suffix(f".orig.{sample.extension}")
                has_original = bool(sample.original) and sample.original != sample.wav
                written.append(
                    Sample(
                        id=sample.id,
                        path=str(path),
                        sha256=sample.sha256,
                        transcript=sample.transcript,
                        duration=sample.duration,
                        sample_rate=sample.sample_rate,
                        loudness=sample.loudness,
                        notes=sample.notes,
                        original=str(original) if has_original else "",
                    )
                )
                if has_original:
                    files[original.name] = sample.original
                files[path.name] = sample.wav
            if files:
                try:
                    write_together(folder, files)
                except FileNotFoundError:
                    # Whoever removed the last recording of an earlier voice took the folder along.
                    folder.mkdir(exist_ok=True)
                    sync_folder(self.root)
                    write_together(folder, files)
        except BaseException:
            self.remove(voice_id, written)
            raise
        return tuple(written)

    def remove(self, voice_id: str, samples: Iterable[Sample]) -> None:
        """Remove the samples' files, and the voice's folder if it is empty then."""
        for sample in samples:
            for path in (sample.path, sample.original):
                if path:
                    Path(path).unlink(missing_ok=True)
        # Other samples may be in it, or it was never made.
        with contextlib.suppress(OSError):
            self.folder(voice_id).rmdir()

    def sweep(self, known: dict[str, set[str]], before: float) -> tuple[int, set[str]]:
        """Remove every file older than ``before`` (seconds since 1970) that is not in ``known``
        (voice id → file names): what is younger may belong to a voice that is being made. Where
        nothing is known, nothing is removed: the database may be another one, or a lost one.

        Returns how many were removed, and the files of ``known`` that are missing, as ``id/name``.
        """
        if not known:
            if next(self.root.glob("*/*.wav"), None) is not None:
                logger.warning(
                    "%s holds recordings, and the database knows no voice; if it is the right "
                    "database, remove them",
                    self.root,
                )
            return 0, set()
        removed = 0
        missing = {f"{voice_id}/{name}" for voice_id, names in known.items() for name in names}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root) as folders:
            for folder in folders:
                if not folder.is_dir(follow_symlinks=False) or not is_voice_id(folder.name):
                    continue
                names = known.get(folder.name, set())
                written = folder.stat().st_mtime  # before removals in it change that
                with contextlib.suppress(OSError), os.scandir(folder.path) as files:
                    for file in files:
                        if file.name in names:
                            missing.discard(f"{folder.name}/{file.name}")
                        elif (
                            _OURS.fullmatch(file.name)
                            and file.stat(follow_symlinks=False).st_mtime < before
                        ):
                            os.unlink(file.path)
                            removed += 1
                if not names and written < before:
                    # Somebody may keep a file of their own in there.
                    with contextlib.suppress(OSError):
                        os.rmdir(folder.path)
        return removed, missing
