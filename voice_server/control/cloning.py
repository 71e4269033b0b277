"""Makes a stored voice of a recording, the same way for every door."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from voice_server.audio.decode import Limits
from voice_server.audio.quality import Quality
from voice_server.control.samples import prepare_sample
from voice_server.core.errors import (
    BackendNotInstalled,
    BusyError,
    Conflict,
    RequestError,
    VoiceServerError,
)
from voice_server.core.voices import (
    MAX_NAME_CHARS,
    Kind,
    Voice,
    slug_from_name,
    warnings_of_length,
)
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.voice_files import NewSample
from voice_worker.backend import BackendInfo

Transcribe = Callable[[bytes, str | None], Awaitable[str]]
"""Text of a WAV (mono, 24 kHz), given a language tag or None. Raises VoiceServerError."""

NO_TRANSCRIBER = (
    "no transcript was given and no transcriber is installed; the voice works without one, and "
    "better with it ('cli.py backends install whisper')"
)
_MAX_WAITING = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Cloned:
    """A new voice; what was measured; and why it has no transcript, if it has none."""

    voice: Voice
    quality: Quality
    transcript_note: str = ""


class Cloning:
    """Turns recordings into voices, two at a time; decoding is somebody else's processor time."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        transcribe: Transcribe | None = None,
        backends: Callable[[], Mapping[str, BackendInfo]] = dict,
        at_once: int = 2,
    ) -> None:
        self.catalogue = catalogue
        self._transcribe = transcribe
        self._backends = backends
        self._room = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def sample(
        self,
        recording: bytes | Path,
        transcript: str | None = None,
        *,
        limits: Limits | None = None,
        language: str | None = None,
    ) -> tuple[NewSample, Quality, str]:
        """A sample to store, what was measured, and why it has no transcript ("" if it has one).

        Raises what ``prepare_sample`` raises, and BusyError when too many wait.
        """
        if self._waiting >= _MAX_WAITING:
            raise BusyError("too many recordings are being read; try again in a few seconds")
        self._waiting += 1
        try:
            async with self._room:
                sample, quality = await asyncio.to_thread(
                    prepare_sample, recording, transcript, limits
                )
        finally:
            self._waiting -= 1
        if sample.transcript:
            return sample, quality, ""
        text, why = await self._text_of(sample, language)
        return dataclasses.replace(sample, transcript=text or None), quality, why

    async def clone(
        self,
        recording: bytes | Path,
        *,
        name: str,
        voice_id: str | None = None,
        transcript: str | None = None,
        limits: Limits | None = None,
        is_renamed: bool = True,
        kind: Kind = "cloned",
        **fields: Any,
    ) -> Cloned:
        """A stored voice. ``fields`` are those of Voice. An id that is taken gets a number behind
        it, or Conflict where ``is_renamed`` is false. RequestError (``sample_too_short``) when no
        backend that runs could clone so short a recording.
        """
        name = clean_name(name)
        wanted = voice_id or slug_from_name(name)
        if not is_renamed and wanted in self.catalogue:
            raise Conflict(
                f"voice {wanted!r} exists already; choose another name, or delete it first",
                code="voice_exists",
            )
        sample, quality, why = await self.sample(
            recording, transcript, limits=limits, language=fields.get("language")
        )
        warnings = warnings_of_length([sample], self._backends())
        quality = dataclasses.replace(quality, warnings=(*quality.warnings, *warnings))
        sample = dataclasses.replace(sample, notes=(*sample.notes, *warnings))
        voice = Voice(id=wanted, name=name, kind=kind, **clean_fields(fields))
        stored = await store_new(self.catalogue, voice, [sample], is_renamed=is_renamed)
        return Cloned(stored, quality, why)

    async def _text_of(self, sample: NewSample, language: str | None) -> tuple[str, str]:
        if self._transcribe is None:
            return "", NO_TRANSCRIBER
        try:
            return (await self._transcribe(sample.wav, language)).strip()[:5_000], ""
        except BackendNotInstalled:
            return "", NO_TRANSCRIBER
        except VoiceServerError as exc:
            return "", f"the recording could not be transcribed: {exc}"


async def store_new(
    catalogue: Catalogue,
    voice: Voice,
    samples: list[NewSample],
    *,
    is_renamed: bool = True,
    is_name_renamed: bool = False,
) -> Voice:
    """Store a voice under its id, or the first free ``id_2``, ``id_3``, … behind it.

    With ``is_name_renamed`` its names get that number too, ``Maya (2)``, and the name is one that
    no other voice has. Raises Conflict where ``is_renamed`` is false and the id is taken.
    """
    for number in itertools.count(1):
        candidate = voice if number == 1 else _numbered(voice, number, is_name_renamed)
        if is_renamed and candidate.id in catalogue:
            continue
        try:
            return await catalogue.create(
                candidate, samples, is_name_unique=is_name_renamed and number > 1
            )
        except Conflict as exc:
            if not is_renamed or exc.code not in ("voice_exists", "name_taken"):
                raise
    raise AssertionError("counting has no end")


def _numbered(voice: Voice, number: int, is_name_renamed: bool) -> Voice:
    suffix, behind = f"_{number}", f" ({number})"
    numbered = dataclasses.replace(voice, id=f"{voice.id[: 64 - len(suffix)]}{suffix}")
    if not is_name_renamed:
        return numbered
    room = MAX_NAME_CHARS - len(behind)
    shown = voice.display_name
    return dataclasses.replace(
        numbered,
        name=f"{voice.name[:room]}{behind}",
        display_name=f"{shown[:room]}{behind}" if shown else "",
    )


def new_id() -> str:
    """A fresh id in the form of a UUID."""
    return str(uuid.uuid4())


def clean_name(name: object) -> str:
    """The name without outer space. Raises RequestError (``bad_name``)."""
    if not isinstance(name, str) or not name.strip():
        raise RequestError("name › expected one that is not empty", code="bad_name")
    name = clean_text("name", name.strip(), MAX_NAME_CHARS)
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise RequestError("a name holds no control characters; take them out", code="bad_name")
    return name


def clean_text(field: str, text: object, limit: int = 20_000) -> str:
    """Text that every database can hold. Raises RequestError (``bad_text``), naming the field."""
    if not isinstance(text, str):
        raise RequestError(f"{field}: expected text", code="bad_text")
    if len(text) > limit:
        raise RequestError(f"{field}: at most {limit} characters, not {len(text)}", code="bad_text")
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise RequestError(f"{field}: expected text without NUL or surrogates", code="bad_text")
    return text


_LIMITS = {"display_name": 200, "language": 64, "design_language": 64, "owner": 200}


def clean_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of Voice that came from outside, each text checked."""
    return {
        key: clean_text(key, value, _LIMITS.get(key, 20_000)) if isinstance(value, str) else value
        for key, value in fields.items()
    }
