"""Voices out of the catalogue as packages, and packages into it.

package ─► read, checked ─► signature ─► recordings decode? ─► conflict? ─► stored, or nothing
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from voice_server.audio.decode import Limits, decode
from voice_server.audio.encode import encode_whole
from voice_server.audio.quality import loudness
from voice_server.control.cloning import new_id, store_new
from voice_server.control.signing import Signer, check_signature
from voice_server.core.errors import Conflict, RequestError, TooLarge
from voice_server.core.manifest import (
    MAX_PACKAGE_BYTES,
    MAX_SAMPLES,
    SUFFIX,
    PackagedSample,
    meta_json,
    read_package,
    write_package,
)
from voice_server.core.voices import Voice
from voice_server.storage.atomic import write_atomic
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.voice_files import NewSample

OnConflict = Literal["error", "skip", "rename", "replace"]

# What was packed elsewhere was judged there; it only has to be sound.
_LIMITS = Limits(min_seconds=0.2, max_seconds=600, timeout=30)


@dataclass(frozen=True, slots=True)
class Imported:
    """The voice, and whether the catalogue changed."""

    voice: Voice
    is_new: bool


class Packages:
    """Exports and imports. ``trusted`` are public keys; with any, only their packages come in."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        signer: Signer | None = None,
        trusted: Collection[str] = (),
    ) -> None:
        self.catalogue = catalogue
        self._signer = signer
        self._trusted = trusted

    async def pack(self, voice_id: str) -> bytes:
        """The package of a voice. Raises UnknownVoice, Conflict for a built-in one, TooLarge for
        one that nobody could import.
        """
        while True:
            voice = self.catalogue.get(voice_id)
            try:
                return await asyncio.to_thread(self._pack, voice)
            except Conflict:
                # Its recordings went because it was replaced or deleted while they were read.
                if self.catalogue.get(voice_id) is voice:
                    raise

    async def unpack(self, data: bytes, on_conflict: str = "error") -> Imported:
        """Take a package into the catalogue, whole or not at all.

        Raises what ``add`` raises, RequestError (``bad_package``, ``bad_signature``, and what
        decoding raises), TooLarge, Forbidden.
        """
        _check(on_conflict)
        if len(data) > MAX_PACKAGE_BYTES:
            raise package_too_large()
        voice, samples = await asyncio.to_thread(self._read, data)
        return await self.add(voice, samples, on_conflict)

    async def add(
        self, voice: Voice, samples: list[NewSample], on_conflict: str = "error"
    ) -> Imported:
        """Store a voice that comes with its id.

        ``on_conflict`` says what happens to an id that is taken: ``error`` (Conflict), ``skip``
        (nothing changes), ``rename`` (a number behind the id and the names), ``replace``. Raises
        Conflict, StorageFull, RequestError (``bad_option``).
        """
        _check(on_conflict)
        if on_conflict == "replace":
            return Imported(await self.catalogue.replace(voice, samples), True)
        if voice.id in self.catalogue:
            match on_conflict:
                case "skip":
                    return Imported(self.catalogue.get(voice.id), False)
                case "error":
                    raise Conflict(
                        f"voice {voice.id!r} exists already; import it with "
                        "on_conflict=skip, rename or replace",
                        code="voice_exists",
                    )
        is_renamed = on_conflict == "rename"
        try:
            stored = await store_new(
                self.catalogue, voice, samples, is_renamed=is_renamed, is_name_renamed=is_renamed
            )
        except Conflict:
            # Somebody else stored it meanwhile.
            if on_conflict == "skip" and voice.id in self.catalogue:
                return Imported(self.catalogue.get(voice.id), False)
            raise
        return Imported(stored, True)

    async def pack_all(self, folder: Path) -> list[Path]:
        """Write the package of every voice into ``folder``, each whole or not at all.

        Raises the first that ``pack`` raised, when those that can be packed are written.
        """
        paths, errors = [], []
        for voice in list(self.catalogue.voices()):
            try:
                paths.append(await asyncio.to_thread(self._pack_into, folder, voice))
            except RequestError as exc:
                errors.append(exc)
        if errors:
            raise errors[0]
        return paths

    def digest(self, voice: Voice) -> str:
        """SHA-256 of what the package's meta.json would say: equal means nothing to sync."""
        hashed = hashlib.sha256(meta_json(voice, [b""] * len(voice.samples)))
        hashed.update(voice.digest.encode())
        return hashed.hexdigest()

    def _pack(self, voice: Voice) -> bytes:
        if len(voice.samples) > MAX_SAMPLES:
            raise _too_much(f"{MAX_SAMPLES} recordings")
        files = [Path(sample.path) for sample in voice.samples]
        try:
            # Looked at before they are read: they may be more than memory holds, too.
            if sum(file.stat().st_size for file in files) > MAX_PACKAGE_BYTES:
                raise package_too_large()
            wavs = [file.read_bytes() for file in files]
        except OSError as exc:
            raise Conflict(
                f"voice {voice.id!r} lost a recording ({exc.strerror}); restore its files, "
                "or delete it",
                code="file_missing",
            ) from exc
        signature = self._signer.sign(meta_json(voice, wavs)) if self._signer else None
        data = write_package(voice, wavs, signature)
        if len(data) > MAX_PACKAGE_BYTES:
            raise package_too_large()
        return data

    def _pack_into(self, folder: Path, voice: Voice) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{voice.id}{SUFFIX}"
        write_atomic(path, self._pack(voice))
        return path

    def _read(self, data: bytes) -> tuple[Voice, list[NewSample]]:
        package = read_package(data)
        check_signature(package.meta, package.signature, self._trusted)
        try:
            return package.voice, [accepted(i, s) for i, s in enumerate(package.samples, 1)]
        except RequestError as exc:
            raise RequestError(
                f"this voice package cannot be used: {exc}", code="bad_package"
            ) from None


def package_too_large(limit: int = MAX_PACKAGE_BYTES) -> TooLarge:
    """What is said of a package of more than ``limit`` bytes."""
    return _too_much(f"{limit // 2**20} MB")


def _too_much(most: str) -> TooLarge:
    return TooLarge(
        f"a voice package has at most {most}, and no setting changes that; delete some of the "
        "voice's samples where it was made (DELETE /profiles/samples/ID) and export it again: a "
        "minute of speech is enough",
        code="package_too_large",
    )


def _check(on_conflict: str) -> None:
    if on_conflict not in get_args(OnConflict):
        raise RequestError(
            f"on_conflict: expected one of {', '.join(get_args(OnConflict))}", code="bad_option"
        )


def accepted(number: int, sample: PackagedSample) -> NewSample:
    """A recording that was a voice's elsewhere, decoded to prove that it is one; kept to the byte
    if it is ours. Raises what ``audio.decode`` raises, naming the sample by its ``number``.
    """
    try:
        recording = decode(sample.wav, _LIMITS)
    except RequestError as exc:
        raise RequestError(f"sample {number} › {exc}", code=exc.code) from None
    wav = encode_whole(recording.pcm.tobytes())
    return NewSample(
        id=new_id(),
        wav=wav,
        sha256=hashlib.sha256(wav).hexdigest(),
        duration=round(recording.duration, 3),
        sample_rate=sample.sample_rate,
        loudness=round(loudness(recording.pcm), 1) if sample.loudness is None else sample.loudness,
        notes=sample.notes,
        transcript=sample.transcript,
        original=b"" if wav == sample.wav else sample.wav,
    )
