"""What leaves the encoders is decoded again by PyAV and compared with what went in."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import wave

import av
import numpy as np
import pytest

from voice_server.audio.encode import encode_whole, make_encoder, resampled_length
from voice_server.audio.formats import ENCODINGS
from voice_server.core.errors import UnsupportedFormat

SECONDS = 2
PITCH = 440.0
TONE = (0.3 * np.sin(2 * np.pi * PITCH * np.arange(24_000 * SECONDS) / 24_000) * 32767).astype(
    "<i2"
)

CODECS = [
    ("opus", "ogg", 24_000),
    ("opus", "webm", 48_000),
    ("opus", "ogg", 8_000),
    ("mp3", "mp3", 24_000),
    ("mp3", "mp3", 44_100),
    ("flac", "flac", 24_000),
    ("flac", "flac", 48_000),
    ("flac", "ogg", 16_000),
    ("aac", "adts", 24_000),
    ("aac", "adts", 44_100),
    ("wav", "wav", 24_000),
    ("wav", "wav", 11_025),
    ("pcm_s16le", "wav", 8_000),
    ("pcm_f32le", "wav", 24_000),
    ("pcm_mulaw", "wav", 8_000),
    ("pcm_alaw", "wav", 8_000),
]


def stream(encoding: str, rate: int, container: str | None, step: int = 480) -> list[bytes]:
    encoder = make_encoder(encoding, rate, container)
    pieces = [encoder.encode(TONE[i : i + step].tobytes()) for i in range(0, len(TONE), step)]
    return [*pieces, encoder.finish()]


def decode(data: bytes) -> tuple[np.ndarray, int]:
    container = av.open(io.BytesIO(data))
    resampler = av.AudioResampler(format="s16", layout="mono")
    parts, rate = [], 0
    for frame in [*container.decode(audio=0), None]:
        rate = frame.sample_rate if frame else rate
        parts += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
    return np.concatenate(parts), rate


def pitch(samples: np.ndarray, rate: int) -> float:
    window = samples[: rate * SECONDS].astype(float) * np.hanning(len(samples[: rate * SECONDS]))
    return float(np.argmax(np.abs(np.fft.rfft(window)))) * rate / len(window)


@pytest.mark.parametrize(("encoding", "container", "rate"), CODECS)
def test_each_format_decodes_to_the_same_sound(encoding: str, container: str, rate: int) -> None:
    samples, decoded_rate = decode(b"".join(stream(encoding, rate, container)))
    if encoding != "opus":  # Opus always decodes at 48 kHz, whatever went in.
        assert decoded_rate == rate
    # Codecs pad to whole frames at both ends.
    assert -1 <= len(samples) - SECONDS * decoded_rate <= 2_300
    assert abs(pitch(samples, decoded_rate) - PITCH) < 1.0
    middle = samples[decoded_rate // 2 : decoded_rate].astype(float)
    # lame scales by 0.95 so that its own ripple does not clip.
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.3 * 32767 / 2**0.5, rel=0.06)


@pytest.mark.parametrize(
    ("encoding", "container", "rate", "within"),
    [
        ("opus", "ogg", 24_000, 40),
        ("opus", "webm", 24_000, 60),
        ("mp3", "mp3", 24_000, 100),
        ("flac", "flac", 24_000, 40),
        ("aac", "adts", 24_000, 120),
        ("wav", "wav", 24_000, 20),
        ("pcm_mulaw", None, 8_000, 100),
    ],
)
def test_the_first_bytes_come_after_little_sound(
    encoding: str, container: str | None, rate: int, within: int
) -> None:
    """FLAC's own frame size held 192 ms back, and an unflushed container 32 KiB."""
    pieces = stream(encoding, rate, container)
    first = next(i for i, piece in enumerate(pieces) if piece)
    assert (first + 1) * 20 <= within


def test_the_native_format_is_passed_through_untouched() -> None:
    pcm = TONE.tobytes()
    encoder = make_encoder("pcm_s16le", 24_000)
    assert encoder.encode(pcm) is pcm
    assert encoder.finish() == b""
    assert encoder.content_type == "audio/pcm;rate=24000;channels=1"


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_mulaw", "pcm_alaw", "pcm_f32le", "wav"])
@pytest.mark.parametrize("samples", [0, 1, 479, 12_345])
def test_the_size_of_sample_formats_is_exact(encoding: str, rate: int, samples: int) -> None:
    encoder = make_encoder(encoding, rate)
    pcm = TONE[:samples].tobytes()
    body = b"".join(encoder.encode(pcm[i : i + 954]) for i in range(0, len(pcm), 954))
    body += encoder.finish()
    assert len(body) == encoder.size_of(samples)
    head = 44 if encoding == "wav" else 0
    assert len(body) == head + resampled_length(samples, rate) * ENCODINGS[encoding].width


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_samples_do_not_depend_on_how_the_sound_was_cut(rate: int) -> None:
    """A resampler that is flushed for each piece clicks; one that dithers differs every time."""
    whole = b"".join(stream("pcm_s16le", rate, None, step=len(TONE)))
    assert b"".join(stream("pcm_s16le", rate, None, step=77)) == whole
    # The tone begins at once, so its edges ring; clicks between pieces would be in the middle.
    joined = np.frombuffer(whole, "<i2").astype(int)[rate // 10 : -rate // 10]
    assert np.abs(np.diff(joined)).max() < 0.3 * 32767 * 2 * np.pi * PITCH / rate * 1.05


def test_a_streamed_wav_says_its_length_is_unknown_and_a_whole_one_says_it_exactly() -> None:
    streamed = b"".join(stream("wav", 24_000, None))
    assert struct.unpack("<I", streamed[4:8]) == struct.unpack("<I", streamed[40:44])
    assert streamed[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(encode_whole(TONE.tobytes()))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.readframes(1 << 20) == TONE.tobytes()


def test_a_wav_of_no_sound_is_a_header() -> None:
    assert len(encode_whole(b"")) == 44
    encoder = make_encoder("wav")
    assert len(encoder.finish()) == 44


def test_g711_survives_its_own_decoder() -> None:
    for law in ("pcm_mulaw", "pcm_alaw"):
        samples, _ = decode(encode_whole(TONE.tobytes(), law, 24_000, "wav"))
        error = np.abs(samples.astype(int) - TONE)
        assert error.max() <= 512


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("vorbis",), "opus, mp3"),
        ((7,), "pcm_s16le"),
        (("opus", 44_100), "48000"),
        (("pcm_s16le", 4_000), "8000 to 48000"),
        (("pcm_s16le", 96_000), "8000 to 48000"),
        (("pcm_s16le", "24000"), "whole number"),
        (("pcm_s16le", True), "whole number"),
        (("flac", 24_000, "mp4"), "flac, ogg"),
    ],
)
def test_an_impossible_format_is_refused_with_what_is_possible(
    arguments: tuple[object, ...], names: str
) -> None:
    with pytest.raises(UnsupportedFormat, match=names):
        make_encoder(*arguments)  # type: ignore[arg-type]


def test_a_bitrate_changes_the_size_and_lossless_formats_take_none() -> None:
    small = len(encode_whole(TONE.tobytes(), "mp3", bitrate=32_000))
    large = len(encode_whole(TONE.tobytes(), "mp3", bitrate=128_000))
    assert large > 3 * small
    with pytest.raises(UnsupportedFormat, match="bitrate"):
        make_encoder("flac", bitrate=64_000)


def test_an_encoder_that_is_dropped_halfway_disturbs_nobody() -> None:
    for encoding, container, rate in CODECS:
        make_encoder(encoding, rate, container).encode(TONE[:4_800].tobytes())
    assert len(encode_whole(TONE.tobytes(), "opus")) > 1_000


def test_pcm_needs_neither_pyav_nor_soxr() -> None:
    """Each of them costs a tenth of a second at the start of the server."""
    code = (
        "import sys; from voice_server.audio.encode import make_encoder;"
        "make_encoder().encode(b'12'); sys.exit('av' in sys.modules or 'soxr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
