"""Makes a reference sample of a recording: decoded, judged, trimmed, set in loudness, hashed.

Every door that takes a recording comes through here. Blocking; call it in a thread.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from voice_server.audio.decode import Limits, decode
from voice_server.audio.encode import encode_whole
from voice_server.audio.formats import SOURCE_RATE
from voice_server.audio.quality import Quality, loudness, measure, prepare
from voice_server.core.errors import RequestError, TooLarge
from voice_server.storage.voice_files import NewSample

MAX_TRANSCRIPT_CHARS = 5_000


def prepare_sample(
    source: Path | bytes, transcript: str | None = None, limits: Limits | None = None
) -> tuple[NewSample, Quality]:
    """The sample, ready to be stored, and what was measured on the recording as given.

    Raises what ``audio.decode`` and ``audio.quality`` raise, and RequestError for a transcript
    that is no text or too long.
    """
    transcript = check_transcript(transcript)
    recording = decode(source, limits)
    quality = measure(recording.pcm)
    pcm = prepare(recording.pcm)
    wav = encode_whole(pcm.tobytes())
    notes = quality.warnings
    if recording.is_damaged:
        notes = (*notes, "parts of the file are damaged and were left out: listen to it")
    sample = NewSample(
        id=str(uuid.uuid4()),
        wav=wav,
        sha256=hashlib.sha256(wav).hexdigest(),
        duration=round(len(pcm) / SOURCE_RATE, 3),
        sample_rate=recording.sample_rate,
        loudness=round(loudness(pcm), 1),
        notes=notes,
        transcript=transcript,
        original=source if isinstance(source, bytes) else source.read_bytes(),
        extension=extension_of(recording.format, recording.codec),
    )
    return sample, quality


def plain_wav(source: Path | bytes, limits: Limits | None = None) -> tuple[bytes, float]:
    """Any recording as a WAV, mono, 24 kHz, unchanged otherwise; and its seconds.

    Raises what ``audio.decode`` raises.
    """
    recording = decode(source, limits or Limits(min_seconds=0.1))
    return encode_whole(recording.pcm.tobytes()), recording.duration


def check_transcript(text: str | None) -> str | None:
    """Return the transcript without outer space, None when it is empty. Raises RequestError."""
    text = (text or "").strip()
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise RequestError(
            "the transcript is not text; send what is said in the recording as UTF-8",
            code="bad_transcript",
        )
    if len(text) > MAX_TRANSCRIPT_CHARS:
        raise TooLarge(
            f"the transcript has {len(text)} characters; at most {MAX_TRANSCRIPT_CHARS} are used",
            code="transcript_too_long",
        )
    return text or None


def extension_of(demuxer: str, codec: str) -> str:
    """The file name extension for what ``audio.sniff`` found."""
    if demuxer == "ogg":
        return "opus" if codec in ("opus", "libopus") else "ogg"
    return {"mov": "mp4", "matroska": "mkv"}.get(demuxer, demuxer)
