"""Which sound formats leave the server: encodings, their containers, their sample rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from voice_server.core.errors import UnsupportedFormat

SOURCE_RATE = 24_000
"""Hertz of the PCM inside the server: int16 little endian, mono."""

MIN_RATE = 8_000
MAX_RATE = 48_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """One row of the table. ``containers`` maps each container to its Content-Type, default first.

    ``rates`` empty means any rate from 8 to 48 kHz. ``width`` is the bytes of one sample where
    that is fixed, else 0.
    """

    containers: Mapping[str, str]
    rates: tuple[int, ...] = ()
    width: int = 0
    bitrate: int = 0


def _encoding(rates: tuple[int, ...] = (), width: int = 0, bitrate: int = 0, **kw: str) -> Encoding:
    return Encoding(MappingProxyType(kw), rates, width, bitrate)


_OPUS = (8_000, 12_000, 16_000, 24_000, 48_000)
_MPEG = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_WAV = "audio/wav"

ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        "pcm_s16le": _encoding(width=2, raw="audio/pcm", wav=_WAV),
        "pcm_f32le": _encoding(width=4, raw="audio/pcm", wav=_WAV),
        "pcm_mulaw": _encoding(width=1, raw="audio/basic", wav=_WAV),
        "pcm_alaw": _encoding(width=1, raw="audio/x-alaw-basic", wav=_WAV),
        "wav": _encoding(width=2, wav=_WAV),
        "opus": _encoding(_OPUS, bitrate=48_000, ogg="audio/ogg", webm="audio/webm"),
        "mp3": _encoding(_MPEG, bitrate=64_000, mp3="audio/mpeg"),
        "flac": _encoding(flac="audio/flac", ogg="audio/ogg"),
        "aac": _encoding(_MPEG, bitrate=64_000, adts="audio/aac"),
    }
)


@dataclass(frozen=True, slots=True)
class Format:
    """A combination that is possible. ``container`` is never None, ``raw`` is the bare samples."""

    encoding: str
    sample_rate: int
    container: str
    content_type: str
    width: int
    bitrate: int


def sound_format(
    encoding: str = "pcm_s16le",
    sample_rate: int = SOURCE_RATE,
    container: str | None = None,
    bitrate: int | None = None,
) -> Format:
    """Check a combination; raise UnsupportedFormat that names what is possible."""
    row = ENCODINGS.get(encoding) if isinstance(encoding, str) else None
    if row is None:
        known = ", ".join(ENCODINGS)
        raise UnsupportedFormat(f"unknown encoding {encoding!r}; possible are {known}")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int):
        raise UnsupportedFormat(f"sample_rate is a whole number of hertz, not {sample_rate!r}")
    if row.rates and sample_rate not in row.rates:
        rates = ", ".join(map(str, row.rates))
        raise UnsupportedFormat(f"{encoding} has no sample rate {sample_rate}; it has {rates}")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise UnsupportedFormat(
            f"sample_rate {sample_rate} is outside {MIN_RATE} to {MAX_RATE}; 24000 is native"
        )
    if container is None:
        container = next(iter(row.containers))
    if container not in row.containers:
        possible = ", ".join(row.containers)
        raise UnsupportedFormat(f"{encoding} does not go into {container!r}; possible: {possible}")
    if bitrate is not None and not (row.bitrate and 6_000 <= bitrate <= 320_000):
        raise UnsupportedFormat(
            f"{encoding} takes no bitrate of {bitrate}; opus, mp3 and aac take 6000 to 320000"
        )
    content_type = row.containers[container]
    if encoding == "pcm_s16le" and container == "raw":
        content_type = f"audio/pcm;rate={sample_rate};channels=1"
    return Format(encoding, sample_rate, container, content_type, row.width, bitrate or row.bitrate)
