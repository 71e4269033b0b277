"""The process that decodes one file a user brought; run as a script, never imported.

The file is its standard input. Before the first byte of it is read, the kernel takes away what
a hostile file could want: no descriptor can be opened after this (so no file and no socket),
memory, processor time and file size are bounded. Out come one line of JSON and the samples:
int16 little endian, mono, 24 kHz.

    python -I _decoder.py <demuxer> <max_seconds> <timeout>
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import wave
from typing import Any

import av
import av.logging

RATE = 24_000
MEMORY = 1 << 30
MAX_BAD_PACKETS = 200
# Only what the accepted containers hold. Pictures are not decoded, so video codecs are not here.
CODECS = (
    "mp3float,mp3,aac,aac_latm,alac,flac,libopus,opus,vorbis,ac3,eac3,wmav2,adpcm_ms,"
    "adpcm_ima_wav,adpcm_ima_qt,gsm_ms,mp2float,mp2,amrnb,nellymoser,speex,pcm_u8,pcm_s8,"
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,"
    "pcm_mulaw,pcm_alaw"
)


class Refused(Exception):
    """This file cannot be used; the arguments are the code and what to tell its owner."""


def main() -> int:
    demuxer, max_seconds, timeout = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    av.logging.set_level(av.logging.PANIC)
    rehearse()
    with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as out:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        signal.alarm(timeout + 2)
        pcm: list[bytes] = []
        try:
            head = decode(source, demuxer, max_seconds, pcm)
        except Refused as exc:
            head = {"code": exc.args[0], "error": exc.args[1]}
        except MemoryError:
            head = {"code": "damaged_audio", "error": "decoding it took more than 1 GiB"}
        except (av.FFmpegError, ValueError, OSError) as exc:
            told = f"{type(exc).__name__}: {exc}"
            head = {"code": "not_audio", "error": "it cannot be decoded", "cause": told[:500]}
        out.write(json.dumps(head).encode() + b"\n")
        if "error" not in head:
            out.writelines(pcm)
    return 0


def rehearse() -> None:
    """Decode a WAV of our own once: PyAV imports some of its modules only when they are needed."""
    tiny = io.BytesIO()
    with wave.open(tiny, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    tiny.seek(0)
    decode(tiny, "wav", 1.0, [])


def decode(source: Any, demuxer: str, max_seconds: float, pcm: list[bytes]) -> dict[str, Any]:
    """Append the file's sound to ``pcm``; return what it was. Raises Refused."""
    container = av.open(
        source,
        format=demuxer,
        options={"codec_whitelist": CODECS, "protocol_whitelist": "none", "enable_drefs": "0"},
        metadata_errors="ignore",
    )
    if not container.streams.audio:
        raise Refused("no_sound", "it has pictures but no sound")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    codec.thread_count = 1
    if not 4_000 <= codec.sample_rate <= 384_000 or not 1 <= codec.channels <= 64:
        raise Refused(
            "damaged_audio", f"{codec.sample_rate} Hz, {codec.channels} channels is not sound"
        )
    parent, samples, bad = os.getppid(), 0, 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    shape: object = None

    def keep(frames: list[Any]) -> None:
        nonlocal samples
        for frame in frames:
            samples += frame.samples
            pcm.append(bytes(frame.planes[0])[: frame.samples * 2])
        if samples > max_seconds * RATE:
            raise Refused("audio_too_long", f"it is longer than {max_seconds:g} seconds")

    packets = container.demux(stream)
    while True:
        if os.getppid() != parent:
            raise SystemExit(1)
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except av.FFmpegError:
            bad += 1
            if bad > MAX_BAD_PACKETS:
                break
            continue
        for frame in frames:
            # Some files change rate or channels on the way, which a resampler refuses.
            if shape not in (None, (frame.format.name, frame.layout.name, frame.sample_rate)):
                keep(resampler.resample(None))
                resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            frame.pts = None
            keep(resampler.resample(frame))
    if shape is not None:
        keep(resampler.resample(None))
    if not samples:
        raise Refused("no_sound", "there is no sound in it")
    return {
        "codec": codec.name,
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "bad_packets": bad,
    }


if __name__ == "__main__":
    sys.exit(main())
