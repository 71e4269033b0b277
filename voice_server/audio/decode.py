"""Turns a recording that a user brought into mono 24 kHz samples, without trusting it.

    bytes ─► size ─► sniff ─► plain PCM WAV? ─yes─► read here, in Python
                                   └──no──► _decoder.py, a process that can open nothing

Blocking; call it in a thread from asyncio.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from voice_server.audio.formats import SOURCE_RATE
from voice_server.audio.sniff import ACCEPTED, HEAD_BYTES, sniff
from voice_server.core.errors import RequestError, StorageFull, TooLarge, UnsupportedFormat

logger = logging.getLogger(__name__)

Int16 = npt.NDArray[np.int16]

_DECODER = Path(__file__).with_name("_decoder.py")
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may be: seconds, bytes, and the seconds that decoding may take."""

    min_seconds: float = 2.0
    max_seconds: float = 300.0
    max_bytes: int = 50 * 1024 * 1024
    timeout: int = 30


@dataclass(frozen=True, slots=True)
class Recording:
    """Decoded sound. ``pcm``: int16, mono, 24 kHz; the rest tells how the file had it."""

    pcm: Int16
    format: str
    codec: str
    sample_rate: int
    channels: int
    is_damaged: bool = False

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.pcm) / SOURCE_RATE


def decode(source: Path | bytes, limits: Limits | None = None) -> Recording:
    """Decode one of the 12 accepted formats, audio or video.

    Raises TooLarge; UnsupportedFormat (``empty_file``, ``not_audio``); RequestError with code
    ``no_sound``, ``damaged_audio``, ``audio_too_short``, ``audio_too_long`` or
    ``decoding_timed_out``. Each message says what to do.
    """
    limits = limits or Limits()
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            recording = _decoded(file, limits)
    except IsADirectoryError:
        raise UnsupportedFormat("it is a folder, not a recording", code="not_audio") from None
    if recording.duration < limits.min_seconds:
        raise RequestError(
            f"Audio too short: {recording.duration:.1f} seconds; "
            f"at least {limits.min_seconds:g} are needed. Record a longer sample",
            code="audio_too_short",
        )
    return recording


def _decoded(file: BinaryIO, limits: Limits) -> Recording:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > limits.max_bytes:
        raise TooLarge(
            f"File too large: {size / 2**20:.1f} MB; the maximum is "
            f"{limits.max_bytes / 2**20:g} MB. Compress or trim the audio",
            code="file_too_large",
        )
    if not size:
        raise UnsupportedFormat("the file is empty; upload it again", code="empty_file")
    kind = sniff(file.read(HEAD_BYTES))
    file.seek(0)
    if kind is None:
        raise UnsupportedFormat(
            f"this is not a recording, whatever its name says; accepted are {ACCEPTED}",
            code="not_audio",
        )
    if kind == "wav":
        plain = _read_plain_wav(file.read(), limits)
        if plain:
            return plain
        file.seek(0)
    return _decode_outside(file, kind, limits)


def _decode_outside(file: BinaryIO, kind: str, limits: Limits) -> Recording:
    """Have the file decoded by a process of its own; see _decoder.py."""
    command = [sys.executable, "-I", str(_DECODER), kind, str(limits.max_seconds)]
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    with tempfile.TemporaryFile() as copy:
        source = file
        if isinstance(file, io.BytesIO):
            try:
                copy.write(file.getbuffer())
                copy.seek(0)
            except OSError as exc:
                raise StorageFull(f"no room for a temporary file: {exc.strerror}") from None
            source = copy
        try:
            done = subprocess.run(
                [*command, str(limits.timeout)],
                stdin=source,
                capture_output=True,
                timeout=limits.timeout + 5,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = None
    if done is None or done.returncode < 0:
        raise RequestError(
            f"decoding did not end within {limits.timeout} seconds and was stopped; "
            "convert the recording to WAV and try again",
            code="decoding_timed_out",
        )
    line, _, pcm = done.stdout.partition(b"\n")
    try:
        head = json.loads(line)
    except ValueError:
        detail = done.stderr[-500:].decode(errors="replace").strip().rpartition("\n")[2]
        logger.warning("the decoder of a recording gave up: %r", detail or done.returncode)
        raise _refusal("damaged_audio", "the decoder gave up") from None
    if "error" in head:
        if "cause" in head:  # the library's words, which are for whoever runs this
            logger.info("a recording cannot be decoded as %s: %r", kind, head["cause"])
        raise _refusal(head["code"], head["error"])
    return Recording(
        pcm=np.frombuffer(pcm, "<i2"),
        format=kind,
        codec=head["codec"],
        sample_rate=head["sample_rate"],
        channels=head["channels"],
        is_damaged=head["bad_packets"] > 0,
    )


def _refusal(code: str, why: str) -> RequestError:
    remedy = {
        "not_audio": f"play it, or convert it to WAV; accepted are {ACCEPTED}",
        "audio_too_long": "trim the audio",
        "no_sound": "choose a recording of a voice",
    }.get(code, "convert the recording to WAV and try again")
    kind = UnsupportedFormat if code == "not_audio" else RequestError
    return kind(f"this recording cannot be used: {why}; {remedy}", code=code)


def _read_plain_wav(data: bytes, limits: Limits) -> Recording | None:
    """Samples of a PCM WAV of 8, 16, 24 or 32 bits; None when it is another kind of WAV."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if width not in (1, 2, 3, 4) or not 4_000 <= rate <= 384_000 or channels > 64:
                return None
            raw = file.readframes(len(data))
    except (wave.Error, EOFError, ValueError):
        return None
    frames = len(raw) // (width * channels)
    if frames > limits.max_seconds * rate:
        raise _refusal("audio_too_long", f"it is longer than {limits.max_seconds:g} seconds")
    if not frames:
        raise _refusal("no_sound", "there is no sound in it")
    table = np.frombuffer(raw[: frames * width * channels], np.uint8).reshape(-1, width)
    match width:
        case 1:
            x = (table[:, 0].astype(np.int16) - 128) << 8
        case 2:
            x = table.reshape(-1).view("<i2")
        case _:  # Beyond 16 bits only the upper two bytes are heard.
            x = np.ascontiguousarray(table[:, -2:]).reshape(-1).view("<i2")
    if channels > 1:
        x = x.reshape(-1, channels).mean(axis=1).round().astype(np.int16)
    return Recording(
        pcm=_at_24_khz(x, rate), format="wav", codec="pcm", sample_rate=rate, channels=channels
    )


def _at_24_khz(x: Int16, rate: int) -> Int16:
    if rate == SOURCE_RATE:
        return x
    import soxr

    y: npt.NDArray[np.float32]
    y = soxr.resample(x.astype(np.float32), rate, SOURCE_RATE, quality="HQ")
    return np.clip(np.rint(y), -32768, 32767).astype(np.int16)
