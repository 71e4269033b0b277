"""What a voice is, how it is named, and what a worker is told to sound like.

One grammar for ids: ``[a-z0-9][a-z0-9_-]{0,63}``, so that an id is a URL segment, a file name
and a key at once, everywhere. Names are free text; ``slug_from_name`` makes an id of one.

A name in a request is looked up in this order: alias, id in the catalogue, speaker of the
backend, name in the catalogue. A voice that the user made therefore wins over a speaker of the
same id, but only on a backend that can speak it.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from voice_server.core.errors import RequestError, UnknownVoice
from voice_worker.backend import BackendInfo, Speaker

Kind = Literal["builtin", "cloned", "designed", "dropped"]

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_NAME_CHARS = 200
# More than this many candidates are not compared when a name is unknown: it must stay cheap.
_MAX_CANDIDATES = 400


def is_voice_id(text: object) -> bool:
    """Whether ``text`` fits the grammar of ids."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def check_voice_id(text: str) -> str:
    """Return ``text`` if it is an id; raise RequestError with code ``bad_voice_id`` if not."""
    if not is_voice_id(text):
        raise RequestError(
            f"{str(text)[:80]!r} is not a voice id: 1 to 64 of a-z, 0-9, _ and -, "
            "beginning with a letter or digit",
            code="bad_voice_id",
        )
    return text


def slug_from_name(name: str) -> str:
    """The id that belongs to a name: ``My Voice!`` → ``my_voice``. The same name, the same id.

    Names without a Latin letter or digit get ``voice_`` and 12 digits of their hash.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    slug = re.sub(r"[^a-z0-9-]+", "_", plain).strip("_-")[:64].rstrip("_-")
    if slug:
        return slug
    return "voice_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Sample:
    """One reference recording of a voice.

    ``path``: the mono 24 kHz WAV that workers read. ``original``: the file as it was given, ""
    when it was not kept. ``duration`` in seconds and ``loudness`` in LUFS are of ``path``;
    ``sample_rate`` is that of the original; ``notes`` are warnings about its quality; ``sha256``
    is of ``path``'s bytes.
    """

    id: str
    path: str
    sha256: str
    transcript: str | None = None
    duration: float = 0.0
    sample_rate: int = 24_000
    loudness: float | None = None
    notes: tuple[str, ...] = ()
    original: str = ""


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of the catalogue, or a built-in speaker listed beside them.

    Times are ISO 8601 in UTC, ending in Z. ``language`` is a BCP 47 tag or "". ``design`` is the
    description that a designed voice was made from. ``consent`` records who allowed the cloning.
    ``backend`` is set for built-in speakers only.
    """

    id: str
    name: str
    kind: Kind
    display_name: str = ""
    description: str = ""
    language: str = ""
    samples: tuple[Sample, ...] = ()
    source: str = ""
    design: str = ""
    design_language: str = ""
    casting_notes: str = ""
    model_used: str = ""
    consent: Mapping[str, Any] | None = None
    created_at: str = ""
    updated_at: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""
    backend: str = ""

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what decides how it sounds: the key for prepared prompts."""
        hashed = hashlib.sha256(self.design.encode() if not self.samples else b"")
        for sample in self.samples:
            transcript = (sample.transcript or "").encode("utf-8", "surrogatepass")
            hashed.update(b"\0" + sample.sha256.encode() + b"\0" + transcript)
        return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that should have been a voice, and why it is not."""

    path: str
    reason: str
    code: str


class HasDuration(Protocol):
    """A recording, stored or not yet. ``duration`` in seconds."""

    @property
    def duration(self) -> float: ...


class VoiceIndex:
    """All voices in memory, by id and by name, in the order in which they are listed."""

    def __init__(self, voices: Iterable[Voice] = ()) -> None:
        self._voices: dict[str, Voice] = {}
        self._names: dict[str, set[str]] = {}
        self._digests: dict[str, str] = {}
        self._order: list[Voice] | None = None
        for voice in voices:
            self.put(voice)

    def put(self, voice: Voice) -> None:
        """Add the voice, or replace the one of the same id."""
        self.discard(voice.id)
        self._voices[voice.id] = voice
        self._digests[voice.id] = voice.digest
        for key in _name_keys(voice):
            self._names.setdefault(key, set()).add(voice.id)
        self._order = None

    def discard(self, voice_id: str) -> None:
        """Take the voice out, if it is there."""
        voice = self._voices.pop(voice_id, None)
        if voice is None:
            return
        del self._digests[voice_id]
        for key in _name_keys(voice):
            ids = self._names[key]
            ids.discard(voice_id)
            if not ids:
                del self._names[key]
        self._order = None

    def get(self, voice_id: str) -> Voice | None:
        """The voice of exactly this id."""
        return self._voices.get(voice_id)

    def digest(self, voice_id: str) -> str:
        """``Voice.digest``, computed when the voice was put."""
        return self._digests[voice_id]

    def named(self, name: str) -> Voice | None:
        """The voice of that name or display name, whatever its case; None if there is none.

        Raises UnknownVoice (``ambiguous_name``), which names their ids, where several have it.
        """
        ids = self._names.get(folded(name), ())
        if len(ids) > 1:
            raise UnknownVoice(
                f"{len(ids)} voices are called {name[:80]!r}; say which by its id: "
                f"{_some(sorted(ids))}",
                code="ambiguous_name",
            )
        return self._voices[next(iter(ids))] if ids else None

    def has_name(self, name: str, *, besides: str = "") -> bool:
        """Whether another voice than ``besides`` is called ``name``."""
        return any(
            folded(self._voices[voice_id].name) == folded(name)
            for voice_id in self._names.get(folded(name), ())
            if voice_id != besides
        )

    def ordered(self) -> Sequence[Voice]:
        """All voices, newest first, then by id."""
        if self._order is None:
            by_id = sorted(self._voices.values(), key=lambda voice: voice.id)
            self._order = sorted(by_id, key=lambda voice: voice.created_at, reverse=True)
        return self._order

    def __contains__(self, voice_id: str) -> bool:
        return voice_id in self._voices

    def __iter__(self) -> Iterator[Voice]:
        return iter(self._voices.values())

    def __len__(self) -> int:
        return len(self._voices)


def _name_keys(voice: Voice) -> set[str]:
    return {folded(text) for text in (voice.name, voice.display_name) if text}


def folded(name: str) -> str:
    """What two ways of writing one name share: case, and accents that macOS writes apart."""
    return unicodedata.normalize("NFC", name).casefold()


def resolve(
    name: str | None,
    backend: str,
    info: BackendInfo,
    voices: VoiceIndex,
    *,
    default: str | None = None,
    aliases: Mapping[str, str] | None = None,
    cache: str = "",
) -> dict[str, Any]:
    """What the worker is told: ``voice_worker.backend.Voice`` as the map of a message.

    ``name`` None or "" is ``default`` if that is configured, else the backend's own default.
    ``aliases`` map other names to ours. ``cache`` is the folder under which prepared prompts are
    kept. Raises UnknownVoice, whose message says what comes near, which voices share the name, or
    which kind of backend can speak the voice.
    """
    asked, name = name, name or default
    if not name:
        return {"speaker": info.default_speaker} if info.default_speaker else {}
    name = (aliases or {}).get(name, name)
    voice = voices.get(name)
    if voice is not None and can_speak(info, voice):
        return _wire(voice, voices.digest(voice.id), backend, cache)
    speaker = speaker_of(name, info)
    if speaker is not None:
        return {"speaker": speaker}
    voice = voice or voices.named(name) or voices.get(name.lower())
    if voice is None:
        raise UnknownVoice(_unknown(name, backend, info, voices) + _configured(asked, name))
    if not voice.samples and not voice.design:
        raise UnknownVoice(
            f"voice {name!r} has no recording yet; add one with POST /profiles/{voice.id}/samples",
            code="voice_is_empty",
        )
    if is_too_short(info, voice.samples):
        raise UnknownVoice(_too_short(backend, info, voice.samples), code="sample_too_short")
    if not can_speak(info, voice):
        ability = "clone a recording" if voice.samples else "design a voice from a description"
        has = _some([speaker.id for speaker in info.speakers])
        raise UnknownVoice(
            f"backend {backend!r} cannot {ability}, which voice {name!r} needs; use a backend "
            f"that can (see /voices)" + (f", or a voice it has: {has}" if has else ""),
            code="voice_not_supported",
        )
    return _wire(voice, voices.digest(voice.id), backend, cache)


def can_speak(info: BackendInfo, voice: Voice) -> bool:
    """Whether the backend is able to speak this voice of the catalogue."""
    if voice.samples:
        return info.clones and not is_too_short(info, voice.samples)
    return bool(voice.design) and info.designs


def is_too_short(info: BackendInfo, samples: Iterable[HasDuration]) -> bool:
    """Whether the backend clones, but from longer recordings than a voice's ``samples``."""
    least = info.min_sample_seconds
    return info.clones and least > 0 and sum(sample.duration for sample in samples) <= least


def warnings_of_length(
    samples: Sequence[HasDuration], infos: Mapping[str, BackendInfo]
) -> tuple[str, ...]:
    """A sentence for each backend that clones from longer recordings than a new voice's.

    Raises RequestError (``sample_too_short``) when none of those that clone takes one so short.
    """
    short = [name for name, info in infos.items() if is_too_short(info, samples)]
    told = tuple(_too_short(name, infos[name], samples) for name in short)
    if short and len(short) == sum(info.clones for info in infos.values()):
        raise RequestError("; ".join(told), code="sample_too_short")
    return told


def _too_short(backend: str, info: BackendInfo, samples: Iterable[HasDuration]) -> str:
    seconds = sum(sample.duration for sample in samples)
    return (
        f"without the silence at its ends the recording lasts {seconds:.1f} s, and backend"
        f" {backend!r} needs more than {info.min_sample_seconds:g} s: record a longer sample"
    )


def speaker_voices(backend: str, info: BackendInfo) -> list[Voice]:
    """The built-in speakers of a backend, as voices to be listed."""
    return [
        Voice(
            id=speaker.id,
            name=speaker.name or speaker.id,
            kind="builtin",
            language=speaker.language,
            source=backend,
            backend=backend,
            tags=(speaker.gender,) if speaker.gender else (),
        )
        for speaker in info.speakers
    ]


def _wire(voice: Voice, digest: str, backend: str, cache: str) -> dict[str, Any]:
    wire: dict[str, Any] = {"digest": digest}
    if cache:
        wire["cache"] = f"{cache}/{backend}/{digest}"
    if voice.samples:
        wire["samples"] = [{"path": s.path, "transcript": s.transcript} for s in voice.samples]
    else:
        wire["design"] = voice.design
    return wire


def owners(name: str | None, infos: Mapping[str, BackendInfo]) -> str:
    """Which backends have a built-in speaker of that name, to end a message with; or nothing."""
    found = [repr(backend) for backend, info in infos.items() if name and speaker_of(name, info)]
    if not found:
        return ""
    return f"; backend {found[0]} has it" if len(found) == 1 else f"; {', '.join(found)} have it"


def speaker_of(name: str, info: BackendInfo) -> str | None:
    """The id of the built-in speaker that is meant, or None."""
    folded = name.casefold()
    near: list[Speaker] = []
    for speaker in info.speakers:
        if speaker.id == name:
            return name
        if folded in (speaker.id.casefold(), speaker.name.casefold()):
            near.append(speaker)
    if name == info.default_speaker:
        return name
    if info.speaker_pattern and len(name) <= 200 and re.fullmatch(info.speaker_pattern, name):
        return name
    return near[0].id if len(near) == 1 else None


def _unknown(name: str, backend: str, info: BackendInfo, voices: VoiceIndex) -> str:
    folded = name.casefold()
    speakers = [speaker.id for speaker in info.speakers]
    mine = [voice.id for voice in voices if can_speak(info, voice)]
    near = [c for c in speakers + mine if c[:1].casefold() == folded[:1]][:_MAX_CANDIDATES]
    close = difflib.get_close_matches(folded[:64], near, n=3, cutoff=0.5)
    shown = f"{name[:80]!r}" + ("…" if len(name) > 80 else "")
    if close:
        return f"backend {backend!r} has no voice {shown}; near it: {', '.join(close)}"
    has = _some(mine + speakers) or "none but its default"
    return f"backend {backend!r} has no voice {shown}; it has {has} (all: /voices)"


def _configured(asked: str | None, name: str) -> str:
    """Where ``name`` comes from if it is not what was ``asked`` for, to end a message with."""
    if asked == name:
        return ""
    return f"; backends.yaml names it {f'for {asked!r}' if asked else 'as the default'}"


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
