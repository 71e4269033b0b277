"""Files made to read other files, to call other hosts, or to swallow the machine."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recordings import container, wav
from voice_server.audio import decode as decode_module
from voice_server.audio.decode import Limits, decode
from voice_server.audio.sniff import sniff
from voice_server.core.errors import RequestError

DECODER = Path(decode_module.__file__).with_name("_decoder.py")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A local port; a decoder that calls out would connect to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def calls(listener: socket.socket) -> int:
    try:
        listener.accept()
    except TimeoutError:
        return 0
    return 1


def playlists(port: int, secret: Path) -> dict[str, bytes]:
    url, path = f"http://127.0.0.1:{port}/a.ts", str(secret)
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "hls-file": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{path}'\n",
        "concat-url": f"ffconcat version 1.0\nfile '{url}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f"<Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "image2": path,
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
        "pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def test_playlists_are_refused_before_any_decoder_sees_them(
    tmp_path: Path, listener: socket.socket
) -> None:
    (tmp_path / "secret.wav").write_bytes(wav())
    for name, data in playlists(listener.getsockname()[1], tmp_path / "secret.wav").items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data)
        with pytest.raises(RequestError) as caught:
            decode(path)
        assert caught.value.code == "not_audio", name
    assert calls(listener) == 0


def test_what_a_library_says_of_a_file_is_for_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "me.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(2_000))
    with caplog.at_level("INFO"), pytest.raises(RequestError) as caught:
        decode(path)
    assert caught.value.code == "not_audio"
    said = f"{caught.value}"
    assert said.startswith("this recording cannot be used: it cannot be decoded; ")
    assert "convert it to WAV" in said
    for word in ("Errno", "Error", "avcodec", "<"):
        assert word not in said
    [record] = caplog.records
    assert "as mov: " in record.getMessage()
    assert "Error" in record.getMessage()


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "dash", "image2", "wav"])
def test_behind_the_list_of_formats_the_kernel_refuses_files_and_sockets(
    tmp_path: Path, listener: socket.socket, demuxer: str
) -> None:
    """The second wall: had a playlist come past the first, its demuxer could open nothing."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav())
    for data in playlists(listener.getsockname()[1], secret).values():
        (tmp_path / "bait").write_bytes(data)
        with open(tmp_path / "bait", "rb") as bait:
            done = subprocess.run(
                [sys.executable, "-I", str(DECODER), demuxer, "300", "10"],
                stdin=bait,
                capture_output=True,
                timeout=60,
            )
        line, _, pcm = done.stdout.partition(b"\n")
        assert not pcm
        assert not line or "error" in json.loads(line)
    assert calls(listener) == 0


def test_polyglots_of_a_playlist_and_a_recording_are_only_the_recording(
    tmp_path: Path, listener: socket.socket
) -> None:
    for data in playlists(listener.getsockname()[1], tmp_path / "secret.wav").values():
        for recording in (wav(), container("mp3", "libmp3lame")):
            assert decode(recording + data).duration == pytest.approx(3, abs=0.2)
    assert calls(listener) == 0


def silence_of(hours: float, fmt: str, codec: str, rate: int) -> bytes:
    buffer = io.BytesIO()
    out = av.open(buffer, "w", format=fmt)
    stream = out.add_stream(codec, rate=rate, layout="mono")
    block = np.zeros((1, rate * 60), np.int16)
    for minute in range(int(hours * 60)):
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, minute * rate * 60
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
    out.close()
    return buffer.getvalue()


# Decodes what comes on its standard input; prints the largest memory of its children, in KiB.
PEAK = """
import contextlib, resource, sys
from voice_server.audio.decode import decode
from voice_server.core.errors import RequestError
with contextlib.suppress(RequestError):
    decode(sys.stdin.buffer.read())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_small_file_that_unfolds_to_hours_is_stopped_at_the_limit() -> None:
    bomb = silence_of(2, "flac", "flac", 8_000)
    assert len(bomb) < 2_000_000
    with pytest.raises(RequestError) as caught:
        decode(bomb)
    assert caught.value.code == "audio_too_long"
    # In a process of its own: here the largest child may have been another test's.
    measured = subprocess.run(
        [sys.executable, "-c", PEAK], input=bomb, capture_output=True, timeout=60, check=True
    )
    assert int(measured.stdout) < 600_000


@pytest.mark.parametrize("rate", [0, 1, 100, 2_000_000_000])
def test_a_wav_with_an_absurd_rate_is_refused(rate: int) -> None:
    data = bytearray(wav())
    data[24:28] = struct.pack("<I", rate)
    with pytest.raises(RequestError):
        decode(bytes(data))


def test_a_wav_with_thousands_of_channels_is_refused_or_decoded_but_never_dies() -> None:
    data = bytearray(wav())
    data[22:24] = struct.pack("<H", 65_535)
    with pytest.raises(RequestError):
        decode(bytes(data))


def test_a_decoder_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(decode_module, "_DECODER", hanging)
    with pytest.raises(RequestError, match="convert the recording") as caught:
        decode(container("flac", "flac"), Limits(timeout=-4))
    assert caught.value.code == "decoding_timed_out"


def test_a_decoder_that_crashes_is_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text("import sys\nsys.exit('it broke')\n")
    monkeypatch.setattr(decode_module, "_DECODER", crashing)
    with pytest.raises(
        RequestError, match="the decoder gave up; convert the recording to WAV"
    ) as caught:
        decode(container("flac", "flac"))
    assert caught.value.code == "damaged_audio"
    assert "it broke" not in f"{caught.value}"
    assert "it broke" in caplog.text


BASES = [
    container(fmt, codec, rate, video, seconds=2.2)
    for fmt, codec, rate, video in [
        ("mp3", "libmp3lame", 24_000, None),
        ("mp4", "aac", 24_000, "mpeg4"),
        ("ogg", "libopus", 48_000, None),
        ("flac", "flac", 24_000, None),
        ("matroska", "aac", 24_000, None),
        ("wav", "pcm_s16le", 24_000, None),
        ("avi", "libmp3lame", 24_000, "mpeg4"),
        ("flv", "aac", 44_100, None),
        ("adts", "aac", 24_000, None),
    ]
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    base=st.sampled_from(BASES),
    at=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=30),
    cut=st.floats(0.05, 1),
)
def test_a_damaged_file_is_sound_or_a_typed_error(
    base: bytes, at: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(base[: int(len(base) * cut)])
    for where, value in at:
        data[int(where * (len(data) - 1))] = value
    with contextlib.suppress(RequestError):
        assert decode(bytes(data), Limits(timeout=10)).duration <= 300


@given(st.binary(max_size=200))
def test_sniffing_takes_any_bytes(head: bytes) -> None:
    assert sniff(head) in (
        None,
        "mp3",
        "wav",
        "avi",
        "flac",
        "ogg",
        "flv",
        "matroska",
        "mov",
        "aac",
    )
