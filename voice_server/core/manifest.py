"""What a ``.voicepkg.zip`` says: ``meta.json``, and the files beside it.

    meta.json            the documented fields, and what only this server knows under
                         ``voice_server``, which other readers ignore
    ref.wav              the first sample, mono 24 kHz
    ref_transcript.txt   what is said in it
    samples/02.wav …     further samples; their transcripts are in meta.json
    signature.json       optional: Ed25519 over the bytes of meta.json, which holds the checksum
                         of everything else

Nothing here is taken from the clock: a voice that did not change makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voice_server.core.archive import read_archive, write_archive
from voice_server.core.errors import Conflict, RequestError
from voice_server.core.voices import Sample, Voice, check_voice_id

FORMAT_VERSION = 1
SUFFIX = ".voicepkg.zip"
MAX_PACKAGE_BYTES = 128 * 1024 * 1024
_MAX_TEXT = 20_000
MAX_SAMPLES = 24

ALLOWED_NAMES = re.compile(
    r"meta\.json|ref\.wav|ref_transcript\.txt|signature\.json|samples/|samples/[a-z0-9_-]{1,40}\.wav"
)

VoiceType = Literal["cloned", "designed"]
# Others have written these for the same two things.
_TYPES = {"clone": "cloned", "dropped": "cloned", "design": "designed", "voice_design": "designed"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True, slots=True)
class PackagedSample:
    """One sample of a package: its WAV as it is in the file, and what is known of it."""

    wav: bytes
    transcript: str | None = None
    sample_rate: int = 24_000
    loudness: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """A package, read and checked. ``voice`` has no samples yet; they are in ``samples``.

    ``meta`` is the bytes of meta.json, which ``signature`` (if any) signs.
    """

    voice: Voice
    samples: tuple[PackagedSample, ...]
    meta: bytes
    signature: Mapping[str, str] | None = None


def write_package(
    voice: Voice, wavs: list[bytes], signature: Mapping[str, str] | None = None
) -> bytes:
    """The package of a voice; ``wavs`` are the bytes of its samples, in their order.

    Raises Conflict for a built-in speaker, which lives in its backend.
    """
    if voice.kind == "builtin":
        raise Conflict(
            f"{voice.id!r} is built into backend {voice.backend!r} and cannot be packed; "
            "only voices made here can",
            code="voice_is_builtin",
        )
    contents: dict[str, bytes] = {"meta.json": meta_json(voice, wavs)}
    for name, wav in zip(_sample_names(len(wavs)), wavs, strict=True):
        contents[name] = wav
        if name == "ref.wav":
            transcript = voice.samples[0].transcript or ""
            contents["ref_transcript.txt"] = transcript.encode()
    if signature is not None:
        contents["signature.json"] = _json(signature)
    return write_archive(contents)


def meta_json(voice: Voice, wavs: list[bytes]) -> bytes:
    """The bytes of meta.json for this voice."""
    first = voice.samples[0] if voice.samples else None
    names = _sample_names(len(wavs))
    return _json(
        {
            "format_version": FORMAT_VERSION,
            "voice_id": voice.id,
            "name": voice.name,
            "display_name": voice.display_name,
            "voice_type": "designed" if voice.kind == "designed" else "cloned",
            "description": voice.description,
            "ref_text": (first.transcript or "") if first else "",
            "ref_duration_s": first.duration if first else 0.0,
            "ref_sample_rate": 24_000,
            "source": voice.source,
            "design_description": voice.design,
            "design_language": voice.design_language,
            "created_at": voice.created_at,
            "casting_notes": voice.casting_notes,
            "model_used": voice.model_used,
            "package_created_at": voice.updated_at,
            "voice_server": {
                "language": voice.language,
                "tags": list(voice.tags),
                "consent": dict(voice.consent) if voice.consent is not None else None,
                "samples": [
                    _sample_json(name, sample)
                    for name, sample in zip(names, voice.samples, strict=True)
                ],
                "sha256": {
                    name: hashlib.sha256(wav).hexdigest()
                    for name, wav in zip(names, wavs, strict=True)
                },
            },
        }
    )


def read_package(data: bytes) -> Package:
    """Read and check a package field by field.

    Raises RequestError (``bad_package``; its message is file › field › what was expected) or
    TooLarge.
    """
    contents = read_archive(data, ALLOWED_NAMES)
    if "meta.json" not in contents:
        raise _bad("meta.json", "", "the file is missing")
    meta = _Fields(_parsed(contents["meta.json"], "meta.json"))
    version = meta.whole("format_version", required=True)
    if version != FORMAT_VERSION:
        raise _bad(
            "meta.json",
            "format_version",
            f"this server reads version {FORMAT_VERSION}, not {version}; update the older side",
        )
    meta.number("ref_duration_s")
    meta.whole("ref_sample_rate")
    own = _Fields(meta.table("voice_server"), "voice_server › ")
    samples = _samples(contents, meta, own)
    kind = _kind(meta.text("voice_type", required=True))
    design = meta.text("design_description")
    # A profile may have no recording yet, and then our part of the metadata says so.
    is_empty = meta.table("voice_server").get("samples") == []
    if kind == "cloned" and not samples and not is_empty:
        raise _bad("ref.wav", "", "the file is missing, and a cloned voice is its recording")
    if kind == "designed" and not samples and not design:
        raise _bad("meta.json", "design_description", "a designed voice needs its description")
    name = meta.text("name", required=True, limit=200)
    voice = Voice(
        id=check_voice_id(meta.text("voice_id", required=True)),
        name=name,
        kind=kind,
        display_name=meta.text("display_name", limit=200),
        description=meta.text("description"),
        language=own.text("language", limit=64),
        source=meta.text("source"),
        design=design,
        design_language=meta.text("design_language", limit=64),
        casting_notes=meta.text("casting_notes"),
        model_used=meta.text("model_used"),
        consent=own.table("consent") or None,
        created_at=meta.time("created_at"),
        updated_at=meta.time("package_created_at"),
        tags=own.texts("tags"),
    )
    signature = None
    if "signature.json" in contents:
        signed = _Fields(
            _parsed(contents["signature.json"], "signature.json"), file="signature.json"
        )
        signature = {
            key: signed.text(key, required=True) for key in ("algorithm", "public_key", "signature")
        }
    return Package(voice, samples, contents["meta.json"], signature)


def _samples(
    contents: Mapping[str, bytes], meta: _Fields, own: _Fields
) -> tuple[PackagedSample, ...]:
    names = [name for name in ("ref.wav",) if name in contents]
    names += sorted(name for name in contents if name.startswith("samples/"))
    if len(names) > MAX_SAMPLES:
        raise _bad("samples/", "", f"at most {MAX_SAMPLES} samples, not {len(names)}")
    for name, digest in own.table("sha256").items():
        if name not in contents:
            raise _bad(str(name)[:80], "", "the file is missing, though meta.json lists it")
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise _bad(name, "", "the file is not the one that was packed: its checksum differs")
    told = {}
    for i, entry in enumerate(own.tables("samples")):
        fields = _Fields(entry, f"voice_server › samples › {i} › ")
        told[fields.text("file", required=True)] = fields
    made = []
    for name in names:
        fields = told.get(name) or _Fields({})
        transcript = fields.text("transcript")
        if name == "ref.wav" and not transcript:
            transcript = meta.text("ref_text")
            if not transcript and "ref_transcript.txt" in contents:
                transcript = _decoded(contents["ref_transcript.txt"], "ref_transcript.txt").strip()
        if len(transcript) > 5_000:
            raise _bad(name, "transcript", "at most 5000 characters")
        made.append(
            PackagedSample(
                wav=contents[name],
                transcript=transcript or None,
                sample_rate=fields.whole("sample_rate") or 24_000,
                loudness=fields.number("loudness"),
                notes=fields.texts("notes"),
            )
        )
    return tuple(made)


def _sample_names(count: int) -> list[str]:
    return ["ref.wav", *(f"samples/{i:02}.wav" for i in range(2, count + 1))][:count]


def _sample_json(name: str, sample: Sample) -> dict[str, Any]:
    return {
        "file": name,
        "transcript": sample.transcript or "",
        "duration_s": sample.duration,
        "sample_rate": sample.sample_rate,
        "loudness": sample.loudness,
        "notes": list(sample.notes),
    }


def _kind(text: str) -> VoiceType:
    text = _TYPES.get(text, text)
    for kind in get_args(VoiceType):
        if text == kind:
            return text  # type: ignore[return-value]
    raise _bad("meta.json", "voice_type", f"'cloned' or 'designed', not {text[:40]!r}")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"


def _decoded(data: bytes, file: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _bad(file, "", "text in UTF-8") from None
    if "\0" in text:
        raise _bad(file, "", "text without NUL")
    return text


def _parsed(data: bytes, file: str) -> Mapping[str, Any]:
    if len(data) > 1 << 20:
        raise _bad(file, "", "at most 1 MB")
    try:
        value = json.loads(_decoded(data, file))
    except (ValueError, RecursionError) as exc:
        raise _bad(file, "", f"JSON ({exc})") from None
    if not isinstance(value, dict):
        raise _bad(file, "", "a JSON object")
    return value


class _Fields:
    """Typed access to a JSON object that somebody else wrote; each mistake names its field."""

    def __init__(
        self, values: Mapping[str, Any], prefix: str = "", file: str = "meta.json"
    ) -> None:
        self._values, self._prefix, self._file = values, prefix, file

    def _fail(self, key: str, expected: str) -> RequestError:
        return _bad(self._file, self._prefix + key, expected)

    def text(self, key: str, *, required: bool = False, limit: int = _MAX_TEXT) -> str:
        value = self._values.get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            raise self._fail(key, "text" if value is not None else "the field is missing")
        if required and not value.strip():
            raise self._fail(key, "not empty")
        if len(value) > limit:
            raise self._fail(key, f"at most {limit} characters")
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise self._fail(key, "text without NUL or lone surrogates")
        return value

    def whole(self, key: str, *, required: bool = False) -> int:
        value = self._values.get(key)
        if value is None and not required:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
            raise self._fail(key, "a whole number")
        return value

    def number(self, key: str) -> float | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
            raise self._fail(key, "a number")
        return float(value)

    def time(self, key: str) -> str:
        value = self.text(key, limit=40)
        if value and not _TIME.fullmatch(value):
            raise self._fail(key, "a time such as 2026-02-15T00:00:00Z")
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._fail(key, "an object")
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise self._fail(key, "an object without NaN or lone surrogates") from None
        if len(text) > 100_000 or b"\\u0000" in text:
            raise self._fail(key, "an object of at most 100 kB without NUL")
        return value

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > 64:
            raise self._fail(key, "a list of at most 64")
        if not all(isinstance(item, dict) for item in value):
            raise self._fail(key, "a list of objects")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > 64:
            raise self._fail(key, "a list of at most 64 texts")
        return tuple(
            _Fields({"": item}, f"{self._prefix}{key} › {i}", self._file).text("", limit=1_000)
            for i, item in enumerate(value)
        )


def _bad(file: str, field: str, expected: str) -> RequestError:
    where = f"{file} › {field}" if field else file
    return RequestError(
        f"this voice package cannot be used: {where} › {expected}", code="bad_package"
    )
