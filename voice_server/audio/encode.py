"""Turns the PCM of a turn into the format its listener asked for, as it is made.

    pcm_s16le 24 kHz ─► resample (soxr, one stream for the turn) ─► codes, or codec + container

One encoder per turn: a resampler or codec that is flushed per chunk clicks. PyAV is imported when
the first encoder that needs it is made.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voice_server.audio.formats import SOURCE_RATE, Format, sound_format

if TYPE_CHECKING:
    from av.container import OutputContainer

Int16 = npt.NDArray[np.int16]

UNKNOWN_SIZE = 0xFFFFFFFF
"""What a streamed WAV header says of its length; players then read to the end."""


class Encoder(ABC):
    """One turn's encoder. Feed ``encode`` in order, then call ``finish`` once.

    ``content_type`` is the HTTP header of the whole stream. Bytes come as soon as the codec has a
    frame: after 20 to 40 ms of sound for opus and flac, 80 for mp3, 100 for aac; another sample
    rate than 24 kHz holds back up to 80 ms more, all of which ``finish`` gives.
    """

    def __init__(self, fmt: Format) -> None:
        self.format = fmt
        self.content_type = fmt.content_type

    @abstractmethod
    def encode(self, pcm: bytes) -> bytes:
        """Whole int16 little-endian samples, mono, 24 kHz; returns what is ready, maybe b""."""

    @abstractmethod
    def finish(self) -> bytes:
        """The rest, to the last sample. Nothing may be encoded after it."""

    def size_of(self, samples: int) -> int | None:
        """Bytes that ``samples`` samples at 24 kHz make in all; None where only the codec knows."""
        return None


def make_encoder(
    encoding: str = "pcm_s16le",
    sample_rate: int = SOURCE_RATE,
    container: str | None = None,
    *,
    bitrate: int | None = None,
) -> Encoder:
    """The encoder for one turn. Raises UnsupportedFormat, naming what is possible."""
    fmt = sound_format(encoding, sample_rate, container, bitrate)
    if not fmt.width:
        return _CodecEncoder(fmt)
    if fmt.encoding == "pcm_s16le" and fmt.container == "raw" and sample_rate == SOURCE_RATE:
        return _Identity(fmt)
    return _SampleEncoder(fmt)


def encode_whole(
    pcm: bytes,
    encoding: str = "wav",
    sample_rate: int = SOURCE_RATE,
    container: str | None = None,
    *,
    bitrate: int | None = None,
) -> bytes:
    """Encode sound that is complete; a WAV then says its exact length."""
    encoder = make_encoder(encoding, sample_rate, container, bitrate=bitrate)
    body = encoder.encode(pcm) + encoder.finish()
    if encoder.format.container != "wav":
        return body
    head = len(wav_header(encoder.format))
    return wav_header(encoder.format, len(body) - head) + body[head:]


def wav_header(fmt: Format, data_bytes: int = UNKNOWN_SIZE) -> bytes:
    """The bytes before the samples of a mono WAV; a ``data_bytes`` left out means a stream."""
    tag, bits = {
        "pcm_s16le": (1, 16),
        "wav": (1, 16),
        "pcm_f32le": (3, 32),
        "pcm_alaw": (6, 8),
        "pcm_mulaw": (7, 8),
    }[fmt.encoding]
    width = bits // 8
    body = struct.pack("<HHIIHH", tag, 1, fmt.sample_rate, fmt.sample_rate * width, width, bits)
    # Formats other than PCM carry an extension size, and a fact chunk with the sample count.
    fact = b""
    if tag != 1:
        body += b"\0\0"
        known = UNKNOWN_SIZE if data_bytes == UNKNOWN_SIZE else data_bytes // width
        fact = b"fact" + struct.pack("<II", 4, known)
    chunks = b"fmt " + struct.pack("<I", len(body)) + body + fact
    chunks += b"data" + struct.pack("<I", data_bytes)
    total = UNKNOWN_SIZE if data_bytes == UNKNOWN_SIZE else 4 + len(chunks) + data_bytes
    return b"RIFF" + struct.pack("<I", total) + b"WAVE" + chunks


def resampled_length(samples: int, rate: int) -> int:
    """How many samples at ``rate`` ``samples`` at 24 kHz become, to the sample."""
    return round(samples * rate / SOURCE_RATE)


class _Identity(Encoder):
    """24 kHz s16le as it is: the hot path costs nothing."""

    def encode(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""

    def size_of(self, samples: int) -> int:
        return samples * 2


class _Resampler:
    """24 kHz to ``rate``, continuous over the turn, exact in length.

    Works in float32: soxr dithers int16 from a seed of its own, and the same turn would then give
    other bytes every time.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._stream = None
        self._samples_in = self._samples_out = 0
        if rate != SOURCE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(SOURCE_RATE, rate, 1, dtype="float32", quality="HQ")

    def push(self, pcm: bytes) -> Int16:
        x = np.frombuffer(pcm, "<i2")
        if self._stream is None:
            return x
        self._samples_in += len(x)
        return self._taken(self._stream.resample_chunk(x.astype(np.float32)))

    def finish(self) -> Int16:
        if self._stream is None:
            return np.empty(0, np.int16)
        rest = self._taken(self._stream.resample_chunk(np.empty(0, np.float32), last=True))
        missing = resampled_length(self._samples_in, self._rate) - self._samples_out
        if missing < 0:
            return rest[:missing]
        return np.pad(rest, (0, missing), mode="edge" if len(rest) else "constant")

    def _taken(self, y: npt.NDArray[np.float32]) -> Int16:
        self._samples_out += len(y)
        return np.clip(np.rint(y), -32768, 32767).astype("<i2")


class _SampleEncoder(Encoder):
    """One code per sample: PCM and G.711, bare or after a WAV header."""

    def __init__(self, fmt: Format) -> None:
        super().__init__(fmt)
        self._resampler = _Resampler(fmt.sample_rate)
        self._header = wav_header(fmt) if fmt.container == "wav" else b""

    def encode(self, pcm: bytes) -> bytes:
        return self._coded(self._resampler.push(pcm))

    def finish(self) -> bytes:
        return self._coded(self._resampler.finish())

    def size_of(self, samples: int) -> int:
        head = len(wav_header(self.format)) if self.format.container == "wav" else 0
        return head + resampled_length(samples, self.format.sample_rate) * self.format.width

    def _coded(self, x: Int16) -> bytes:
        head, self._header = self._header, b""
        match self.format.encoding:
            case "pcm_f32le":
                return head + (x.astype("<f4") / np.float32(32768)).tobytes()
            case "pcm_mulaw" | "pcm_alaw" as law:
                return head + _g711_table(law)[x.view(np.uint16)].tobytes()
        return head + x.tobytes()


@cache
def _g711_table(law: str) -> npt.NDArray[np.uint8]:
    """The G.711 code of each int16, indexed by its bits as uint16, made by the codec itself."""
    import av

    codec: Any = av.CodecContext.create(law, "w")
    codec.sample_rate, codec.layout, codec.format = 8_000, "mono", "s16"
    every = np.arange(65_536, dtype=np.uint16).view(np.int16).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(every, format="s16", layout="mono")
    frame.sample_rate = 8_000
    packets = [*codec.encode(frame), *codec.encode(None)]
    return np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8)


class _Sink:
    """The write-only object that a container streams into."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


# (container format, codec, container options, codec options), by (encoding, container). Every
# packet is flushed; nothing is patched afterwards, because a stream cannot seek.
_CODECS: dict[tuple[str, str], tuple[str, str, dict[str, str], dict[str, str]]] = {
    ("opus", "ogg"): ("ogg", "libopus", {"page_duration": "20000"}, {"frame_duration": "20"}),
    ("opus", "webm"): (
        "webm",
        "libopus",
        {"live": "1", "cluster_time_limit": "100"},
        {"frame_duration": "20"},
    ),
    # Without its bit reservoir lame need not hold a frame back to see what the next one needs.
    ("mp3", "mp3"): (
        "mp3",
        "libmp3lame",
        {"write_xing": "0", "id3v2_version": "0"},
        {"reservoir": "0"},
    ),
    ("flac", "flac"): ("flac", "flac", {"metadata_header_padding": "0"}, {}),
    ("flac", "ogg"): ("ogg", "flac", {"page_duration": "20000"}, {}),
    ("aac", "adts"): ("adts", "aac", {}, {}),
}


class _CodecEncoder(Encoder):
    """A codec and a container by PyAV, streaming into memory."""

    def __init__(self, fmt: Format) -> None:
        super().__init__(fmt)
        import av

        container, codec, options, codec_options = _CODECS[fmt.encoding, fmt.container]
        if fmt.encoding == "flac":
            # Its own choice is 4608 samples, 192 ms late at 24 kHz.
            codec_options = {"frame_size": str(fmt.sample_rate // 50)}
        self._sink = _Sink()
        self._out: OutputContainer = av.open(
            self._sink, "w", format=container, options={"flush_packets": "1", **options}
        )
        stream: Any = self._out.add_stream(
            codec,
            rate=fmt.sample_rate,
            layout="mono",
            options={"threads": "1", **codec_options},
        )
        if fmt.bitrate:
            stream.bit_rate = fmt.bitrate
        self._stream = stream
        self._resampler = _Resampler(fmt.sample_rate)
        self._frame_type = av.AudioFrame
        self._position = 0

    def encode(self, pcm: bytes) -> bytes:
        self._push(self._resampler.push(pcm))
        return self._sink.take()

    def finish(self) -> bytes:
        self._push(self._resampler.finish())
        self._out.mux(self._stream.encode(None))
        # Some containers write their tail only here: take the bytes after the close.
        self._out.close()
        return self._sink.take()

    def _push(self, x: Int16) -> None:
        if not len(x):
            return
        frame = self._frame_type.from_ndarray(x.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self.format.sample_rate
        frame.pts = self._position
        self._position += len(x)
        self._out.mux(self._stream.encode(frame))
