"""Every format of ``WS /stream-tokens`` is that of a file of the same text."""

from __future__ import annotations

import struct

import httpx
import pytest

from tests.end_to_end.conftest import Server
from tests.end_to_end.talking import talk

STORY = "The first sentence is here. Then comes another one! And is this the last? It is."


@pytest.mark.parametrize(
    ("encoding", "rate"),
    [
        ("pcm_s16le", 8_000),
        ("pcm_s16le", 48_000),
        ("pcm_mulaw", 8_000),
        ("pcm_alaw", 8_000),
        ("opus", 48_000),
        ("mp3", 44_100),
        ("flac", 16_000),
    ],
)
def test_every_format_is_that_of_a_file_of_the_same_text(
    server: Server, http: httpx.Client, encoding: str, rate: int
) -> None:
    fmt = {"encoding": encoding, "sample_rate": rate}
    answer = http.post("/tts", json={"text": STORY, "voice": "low", "format": fmt})
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice="low", format=fmt)
        agent.send(token=STORY, done=True)
        agent.until("done")
        ready = agent.of("ready")[0]
        assert (ready["encoding"], ready["sample_rate"]) == (encoding, rate)
        if encoding == "opus":  # its stream has a serial number of its own
            assert abs(len(agent.sound) - len(answer.content)) < 200
        else:
            assert agent.sound == answer.content
    if encoding.startswith("pcm"):
        width = struct.calcsize("h") if encoding == "pcm_s16le" else 1
        seconds = agent.of("done")[0]["stats"]["audio_ms"] / 1000
        assert len(agent.sound) / width / rate == pytest.approx(seconds, abs=0.002)
