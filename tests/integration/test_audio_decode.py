"""Every accepted format, audio and video, comes back as the sound that went in."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.recordings import RATE, container, pitch_of, tone, wav
from voice_server.audio.decode import Limits, decode
from voice_server.audio.encode import encode_whole
from voice_server.audio.sniff import AUDIO_FORMATS, VIDEO_FORMATS
from voice_server.core.errors import RequestError, TooLarge, UnsupportedFormat

FORMATS = {
    "mp3": ("mp3", "libmp3lame", RATE, None),
    "wav": ("wav", "pcm_s24le", 44_100, None),
    "m4a": ("ipod", "aac", RATE, None),
    "aac": ("adts", "aac", RATE, None),
    "ogg": ("ogg", "libopus", 48_000, None),
    "flac": ("flac", "flac", RATE, None),
    "mp4": ("mp4", "aac", RATE, "libx264"),
    "mov": ("mov", "aac", RATE, "mpeg4"),
    "avi": ("avi", "libmp3lame", RATE, "mpeg4"),
    "webm": ("webm", "libopus", 48_000, "libvpx"),
    "mkv": ("matroska", "aac", RATE, "mpeg4"),
    "flv": ("flv", "libmp3lame", 44_100, "flv"),
}


def test_the_twelve_formats_of_the_documentation_are_the_ones_tested() -> None:
    assert set(FORMATS) == {*AUDIO_FORMATS, *VIDEO_FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_becomes_mono_24_khz(name: str) -> None:
    fmt, codec, rate, video = FORMATS[name]
    recording = decode(container(fmt, codec, rate, video))
    assert recording.pcm.dtype == np.int16
    # aac, avi-mp3 and flv pad by up to 1,500 samples at each end.
    assert recording.duration == pytest.approx(3.0, abs=0.15)
    assert pitch_of(recording.pcm[:RATE]) == pytest.approx(200, abs=2)
    assert recording.sample_rate == rate
    assert not recording.is_damaged


@pytest.mark.parametrize("encoding", ["pcm_f32le", "pcm_mulaw", "pcm_alaw"])
def test_a_wav_that_is_not_plain_pcm_is_decoded_too(encoding: str) -> None:
    recording = decode(encode_whole(tone().tobytes(), encoding, container="wav"))
    assert pitch_of(recording.pcm[:RATE]) == pytest.approx(200, abs=2)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 96_000])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_plain_wav_of_any_rate_width_and_channels_is_read(
    rate: int, width: int, channels: int
) -> None:
    t = np.arange(rate * 2) / rate
    x = (np.sin(2 * np.pi * 200 * t) * 0.5 * 2 ** (8 * width - 1)).astype(np.int64)
    if width == 1:
        x += 128
    raw = x.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(raw, channels, axis=0).tobytes())
    recording = decode(buffer.getvalue())
    assert recording.codec == "pcm"
    assert recording.duration == pytest.approx(2.0, abs=0.001)
    assert pitch_of(recording.pcm) == pytest.approx(200, abs=1)
    peak = np.abs(recording.pcm[RATE // 2 : RATE].astype(int)).max() / 32768
    assert peak == pytest.approx(0.5, abs=0.01)


def test_a_plain_wav_at_24_khz_comes_back_to_the_bit(tmp_path: Path) -> None:
    pcm = tone()
    (tmp_path / "a.wav").write_bytes(encode_whole(pcm.tobytes()))
    assert np.array_equal(decode(tmp_path / "a.wav").pcm, pcm)


def test_a_streamed_wav_without_a_length_is_read_to_its_end() -> None:
    data = bytearray(wav())
    data[4:8] = data[40:44] = b"\xff" * 4
    assert decode(bytes(data)).duration == pytest.approx(3.0)


def test_an_mp3_behind_a_large_tag_is_found() -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0x7F, 0x7F]) + bytes(0x7F << 7 | 0x7F)
    assert decode(tag + container("mp3", "libmp3lame")).format == "mp3"


def test_a_file_that_ends_early_gives_what_is_left() -> None:
    whole = container("mp3", "libmp3lame", seconds=6)
    assert 2 < decode(whole[: len(whole) * 2 // 3]).duration < 5


@pytest.mark.parametrize(
    ("data", "kind", "code", "words"),
    [
        (b"", UnsupportedFormat, "empty_file", "empty"),
        (b"This is a text file. " * 500, UnsupportedFormat, "not_audio", "accepted are MP3"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5_000), UnsupportedFormat, "not_audio", "accepted are MP3"),
        (b"\xff\xfb\x90\x64" + bytes(5_000), UnsupportedFormat, "not_audio", "accepted"),
        (wav(1.5), RequestError, "audio_too_short", "at least 2"),
        (container("mp3", "libmp3lame", seconds=1), RequestError, "audio_too_short", "1.0"),
        (container("mp4", None, video="mpeg4"), RequestError, "no_sound", "choose a recording"),
        (encode_whole(b""), RequestError, "no_sound", "no sound"),
        (b"RIFF" + struct.pack("<I", 4) + b"WAVE", RequestError, "not_audio", "decoded"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_remedy(
    data: bytes, kind: type[RequestError], code: str, words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        decode(data)
    assert caught.value.code == code
    assert caught.value.status == 400


@pytest.mark.parametrize(("fmt", "codec"), [("wav", "pcm_s16le"), ("flac", "flac")])
def test_a_recording_of_six_minutes_is_too_long(fmt: str, codec: str) -> None:
    with pytest.raises(RequestError, match="300 seconds; trim") as caught:
        decode(container(fmt, codec, seconds=360))
    assert caught.value.code == "audio_too_long"


def test_a_file_of_51_mb_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    with open(path, "wb") as file:
        file.truncate(51 * 1024 * 1024)
    with pytest.raises(TooLarge, match=r"51\.0 MB; the maximum is 50 MB") as caught:
        decode(path)
    assert caught.value.status == 413


def test_the_limits_can_be_set() -> None:
    limits = Limits(min_seconds=0.1, max_seconds=1, max_bytes=200_000)
    assert decode(wav(0.5), limits).duration == pytest.approx(0.5)
    with pytest.raises(RequestError, match="1 seconds"):
        decode(wav(1.5), limits)
    with pytest.raises(TooLarge):
        decode(wav(10), limits)
