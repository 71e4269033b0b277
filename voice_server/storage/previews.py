"""What is kept for a while only: uploaded recordings, and sound made to be tried.

    uploads/<session>/sample.wav, source.<format>, session.json    12 hours, unless saved
    previews/<job>.wav                                             20 minutes

A session that somebody is using is never taken away; it goes at the next look. Blocking, but for
the pins; call it in threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from voice_server.core.errors import NotFound
from voice_server.core.voices import is_voice_id
from voice_server.storage.atomic import TEMPORARY, full_disk_told, sync_folder, write_atomic
from voice_server.storage.voice_files import NewSample


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """An uploaded recording: its sample, without the bytes, and where those are."""

    id: str
    folder: Path
    sha256: str
    transcript: str | None
    duration: float
    sample_rate: int
    loudness: float
    notes: tuple[str, ...]
    extension: str

    @property
    def wav(self) -> Path:
        """The sample, mono 24 kHz."""
        return self.folder / "sample.wav"

    def sample(self) -> NewSample:
        """The sample with its bytes, to be stored in a voice. Raises NotFound, if it is gone."""
        try:
            wav = self.wav.read_bytes()
            original = (self.folder / f"source.{self.extension}").read_bytes()
        except FileNotFoundError:
            raise _unknown(self.id) from None
        return NewSample(
            id=str(uuid.uuid4()),
            wav=wav,
            sha256=self.sha256,
            duration=self.duration,
            sample_rate=self.sample_rate,
            loudness=self.loudness,
            notes=self.notes,
            transcript=self.transcript,
            original=original,
            extension=self.extension,
        )


class Previews:
    """Sessions and previews under ``folder``. Retentions in seconds."""

    def __init__(
        self, folder: Path, *, upload_retention: float = 43_200, preview_retention: float = 1_200
    ) -> None:
        self._uploads = folder / "uploads"
        self._previews = folder / "previews"
        self._upload_retention = upload_retention
        self._preview_retention = preview_retention
        self._pins: Counter[str] = Counter()

    def open_session(self, sample: NewSample) -> Session:
        """Keep an uploaded sample. Raises StorageFull; then nothing is left of it."""
        session_id = uuid.uuid4().hex
        session = Session(
            id=session_id,
            folder=self._uploads / session_id,
            sha256=sample.sha256,
            transcript=sample.transcript,
            duration=sample.duration,
            sample_rate=sample.sample_rate,
            loudness=sample.loudness,
            notes=sample.notes,
            extension=sample.extension,
        )
        told = dataclasses.asdict(session)
        del told["folder"]
        temporary = self._uploads / f"{TEMPORARY}{session_id}"
        with full_disk_told("the upload"):
            try:
                temporary.mkdir(parents=True)
                write_atomic(temporary / "sample.wav", sample.wav)
                write_atomic(temporary / f"source.{sample.extension}", sample.original)
                write_atomic(temporary / "session.json", json.dumps(told).encode())
                os.rename(temporary, session.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_folder(self._uploads)
        return session

    def session(self, session_id: object) -> Session:
        """The session of this id. Raises NotFound."""
        if isinstance(session_id, str) and is_voice_id(session_id):
            folder = self._uploads / session_id
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                told = json.loads((folder / "session.json").read_bytes())
                told["notes"] = tuple(told["notes"])
                return Session(folder=folder, **told)
        raise _unknown(session_id)

    def close_session(self, session_id: str) -> None:
        """Take the session away, unless somebody uses it."""
        if is_voice_id(session_id) and not self._pins[session_id]:
            shutil.rmtree(self._uploads / session_id, ignore_errors=True)

    @contextlib.contextmanager
    def pinned(self, session_id: str) -> Iterator[None]:
        """While this is open, the session stays."""
        self._pins[session_id] += 1
        try:
            yield
        finally:
            self._pins[session_id] -= 1
            if not self._pins[session_id]:
                del self._pins[session_id]

    def add_preview(self, wav: bytes) -> str:
        """Keep sound for a while; returns the id of its job. Raises StorageFull."""
        job_id = uuid.uuid4().hex
        with full_disk_told("the preview"):
            self._previews.mkdir(parents=True, exist_ok=True)
            write_atomic(self._previews / f"{job_id}.wav", wav)
        return job_id

    def preview(self, job_id: str) -> Path:
        """The WAV of a preview. Raises NotFound."""
        path = self._previews / f"{job_id}.wav"
        if not is_voice_id(job_id) or not path.is_file():
            raise NotFound(
                f"preview {job_id[:80]!r} not found; previews are kept for "
                f"{self._preview_retention / 60:g} minutes",
                code="unknown_preview",
            )
        return path

    def sweep(self) -> int:
        """Remove what has been kept long enough; returns how much that was."""
        removed = 0
        for folder, retention in (
            (self._uploads, self._upload_retention),
            (self._previews, self._preview_retention),
        ):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                    is_left_over = entry.name.startswith(TEMPORARY) and age > 600
                    if not is_left_over and (age < retention or self._pins[entry.name]):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        Path(entry.path).unlink(missing_ok=True)
                    removed += 1
        return removed


def _unknown(session_id: object) -> NotFound:
    return NotFound(
        f"session {str(session_id)[:80]!r} not found; it may have expired: upload again",
        code="unknown_session",
    )
