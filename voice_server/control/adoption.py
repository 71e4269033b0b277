"""Voices out of the folders in which other servers keep theirs.

    voices/<id>/ref.wav · meta.json                       with catalog.json beside the folders
    audio/voices/<id>/source.wav · transcription.txt · metadata.json
    data/voicebox.db · profiles/<id>/<sample id>.wav

Prompts that those servers computed (``embedding.json``, ``cache/*.prompt``) are left: they hold
nothing that the recording does not, belong to one version of one model, and may be pickles.
Nothing in such a folder is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voice_server.control.cloning import clean_fields, clean_name
from voice_server.control.packages import Imported, Packages, accepted
from voice_server.control.samples import check_transcript
from voice_server.core.errors import RequestError, VoiceServerError
from voice_server.core.manifest import PackagedSample
from voice_server.core.voices import Voice, is_voice_id, slug_from_name

_MAX_JSON = 1 << 20
_TRANSCRIPTS = {"ref.wav": "ref_transcript.txt", "source.wav": "transcription.txt"}
"""Each name that a reference recording has, and the file with what is said in it."""

_FIELDS = {
    "display_name": "display_name",
    "description": "description",
    "language": "language",
    "source": "source",
    "design_description": "design",
    "design_language": "design_language",
    "casting_notes": "casting_notes",
    "model_used": "model_used",
}
"""What they call the fields that are text, and what we do."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A reference recording, and what is said in it, if that is known."""

    path: Path
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A voice that another server keeps under ``id``: what it told of it, and its recordings."""

    id: str
    told: Mapping[str, Any]
    recordings: tuple[Recording, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A voice that could not be taken over, and why."""

    id: str
    error: VoiceServerError


async def adopt(
    packages: Packages, folder: Path, on_conflict: str = "error"
) -> AsyncIterator[Imported | Refused]:
    """Take over every voice that is kept in ``folder``; one that cannot be stops no other.

    Raises RequestError (``unknown_layout``) when none is.
    """
    for kept in await asyncio.to_thread(kept_in, folder):
        try:
            voice, samples = await asyncio.to_thread(_read, kept)
            yield await packages.add(
                voice,
                [await asyncio.to_thread(accepted, i, s) for i, s in enumerate(samples, 1)],
                on_conflict,
            )
        except VoiceServerError as exc:
            yield Refused(kept.id, exc)


def is_kept_in(folder: Path) -> bool:
    """Whether another server keeps voices in ``folder``. Blocking."""
    try:
        return bool(kept_in(folder))
    except RequestError:
        return False


def kept_in(folder: Path) -> list[Kept]:
    """The voices that another server keeps in ``folder``, or in ``voices`` below it. Blocking.

    Raises RequestError (``unknown_layout``) when there is none.
    """
    for place in (folder, folder / "data"):
        if (place / "voicebox.db").is_file():
            return _profiles(place)
    for place in (folder, folder / "voices", folder / "audio" / "voices"):
        if found := list(_voice_folders(place)):
            return found
    raise RequestError(
        f"{folder} holds no voices in a layout that is known: expected packages, folders with "
        "ref.wav or source.wav, catalog.json, or voicebox.db with its profiles",
        code="unknown_layout",
    )


def _voice_folders(folder: Path) -> Iterator[Kept]:
    listed = _listed(folder / "catalog.json")
    with contextlib.suppress(OSError):
        for place in sorted(folder.iterdir()):
            for name, transcript in _TRANSCRIPTS.items():
                if (place / name).is_file():
                    told = {**listed.pop(place.name, {}), **_json(place / "meta.json")}
                    told |= _json(place / "metadata.json")
                    text = told.get("ref_text") or told.get("transcription")
                    recording = Recording(place / name, text or _text(place / transcript))
                    yield Kept(place.name, told, (recording,))
                    break
    # What is in the list and has no folder can still be a voice, if it is a description.
    for voice_id, told in listed.items():
        if told.get("design_description"):
            yield Kept(voice_id, {"voice_type": "designed", **told})


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a ``catalog.json`` by id: an object of them, a list, or either in "voices"."""
    listed = _json(path, dict | list)
    if isinstance(listed, dict):
        listed = listed.get("voices", listed)
    if isinstance(listed, list):
        entries = [entry for entry in listed if isinstance(entry, dict)]
        return {str(entry.get("voice_id") or entry.get("id") or ""): entry for entry in entries}
    if not isinstance(listed, dict):
        return {}
    return {key: entry for key, entry in listed.items() if isinstance(entry, dict)}


def _profiles(folder: Path) -> list[Kept]:
    try:
        address = f"{(folder / 'voicebox.db').resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            profiles = [dict(row) for row in connection.execute("SELECT * FROM profiles")]
            samples = [dict(row) for row in connection.execute("SELECT * FROM profile_samples")]
    except sqlite3.Error as exc:
        raise RequestError(
            f"{folder / 'voicebox.db'} cannot be read: {exc}", code="unknown_layout"
        ) from exc
    recordings: dict[str, list[Recording]] = {}
    for sample in samples:
        profile = str(sample.get("profile_id"))
        # Where it was on the machine it comes from says nothing; its name does.
        name = Path(str(sample.get("audio_path") or f"{sample.get('id')}.wav")).name
        place = folder / "profiles" / Path(profile).name / name
        recordings.setdefault(profile, []).append(Recording(place, sample.get("reference_text")))
    return [
        Kept(str(profile.get("id")), profile, tuple(recordings.get(str(profile.get("id")), ())))
        for profile in profiles
    ]


def _read(kept: Kept) -> tuple[Voice, list[PackagedSample]]:
    samples = []
    for recording in kept.recordings:
        try:
            data = recording.path.read_bytes()
        except OSError as exc:
            raise RequestError(
                f"{recording.path} cannot be read: {exc.strerror}", code="file_missing"
            ) from exc
        transcript = recording.transcript if isinstance(recording.transcript, str) else None
        samples.append(PackagedSample(data, check_transcript(transcript)))
    name = clean_name(kept.told.get("name") or kept.told.get("display_name") or kept.id)
    fields = clean_fields(
        {
            ours: kept.told[theirs]
            for theirs, ours in _FIELDS.items()
            if isinstance(kept.told.get(theirs), str)
        }
    )
    fields.setdefault("source", "import")
    is_design = not samples and bool(fields.get("design"))
    voice = Voice(
        id=kept.id if is_voice_id(kept.id) else slug_from_name(kept.id),
        name=name,
        kind="designed" if is_design or "design" in _kind(kept) else "cloned",
        created_at=_time(kept.told.get("created_at")),
        updated_at=_time(kept.told.get("updated_at")),
        **fields,
    )
    return voice, samples


def _kind(kept: Kept) -> str:
    return str(kept.told.get("voice_type") or "cloned")


def _time(value: object) -> str:
    """A time in any of the ways JSON and databases have it, as ours; "" when it is none."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        elif isinstance(value, int | float):
            at = datetime.fromtimestamp(value, UTC)
        else:
            return ""
        return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def _text(path: Path) -> str | None:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(_MAX_JSON)
    except OSError:
        return None


def _json(path: Path, kind: Any = dict) -> Any:
    """What the file says, if it is there and is of this kind; {} otherwise: it only describes."""
    try:
        value = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, kind) else {}
