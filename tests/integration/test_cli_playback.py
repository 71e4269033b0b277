"""Sinks of the command line: a real null device, real files."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from pathlib import Path

import av
import numpy as np
import pytest

import client
from voice_server.cli.playback import COMPRESSED, Player, SoundFile, open_player
from voice_server.core.errors import ConfigError

TONE = (np.sin(np.arange(24_000) / 9) * 9000).astype("<i2").tobytes()


def test_a_device_takes_everything_before_it_is_finished() -> None:
    with contextlib.closing(Player(is_null=True)) as player:
        player.write(TONE * 60)
        assert player.waiting > 0
        player.drop()
        player.write(TONE[:9600])
        asyncio.run(asyncio.wait_for(player.finish(), 60))
        assert player.waiting == 0


def test_what_is_dropped_is_not_played() -> None:
    with contextlib.closing(Player(is_null=True)) as player:
        player.write(TONE * 60)
        player.drop()
        assert player.waiting == 0
        asyncio.run(asyncio.wait_for(player.finish(), 60))


def test_the_client_plays_a_growing_buffer_to_its_end() -> None:
    heard = bytearray(TONE[:4800])
    player = client.Player(heard, is_null=True)
    try:
        heard += TONE[:4800]
        asyncio.run(asyncio.wait_for(player.finish(), 60))
    finally:
        player.stop()


def test_where_nothing_can_be_played_a_word_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import miniaudio

    def fails(**_: object) -> None:
        raise miniaudio.MiniaudioError("failed to init device", -401)

    monkeypatch.setattr(miniaudio, "PlaybackDevice", fails)
    assert open_player(None) is None
    assert "not played: there is no sound device" in capsys.readouterr().err
    assert client.make_player(None, client.Listener()) is None
    assert "not played: there is no sound device" in capsys.readouterr().err
    assert open_player(False) is None
    assert capsys.readouterr().err == ""


def test_a_wav_file_holds_the_samples_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with contextlib.closing(SoundFile(path)) as file:
        file.write(TONE[:1000])
        file.write(TONE[1000:])
    with wave.open(str(path)) as read:
        assert read.getframerate() == 24_000
        assert read.readframes(48_000) == TONE


@pytest.mark.parametrize("ending", sorted(COMPRESSED))
def test_a_compressed_file_can_be_decoded_to_its_length(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    with contextlib.closing(SoundFile(path)) as file:
        for start in range(0, len(TONE), 4800):
            file.write(TONE[start : start + 4800])
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = sum(
            frame.samples * 24_000 / frame.sample_rate for frame in container.decode(stream)
        )
    assert abs(samples - 24_000) < 2400


@pytest.mark.parametrize("ending", [".wav", *sorted(COMPRESSED)])
def test_a_recording_stays_until_there_is_sound_to_take_its_place(
    tmp_path: Path, ending: str
) -> None:
    old, new = tmp_path / f"old{ending}", tmp_path / f"new{ending}"
    old.write_bytes(b"the only recording " * 5_000)
    before = old.read_bytes()
    SoundFile(old).close()
    assert old.read_bytes() == before
    for path in (old, new):
        with contextlib.closing(SoundFile(path)) as file:
            file.write(TONE)
    assert len(old.read_bytes()) == len(new.read_bytes())


def test_an_ending_or_folder_that_is_impossible_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in .wav, .mp3, .opus"):
        SoundFile(tmp_path / "a.docx")
    with pytest.raises(ConfigError, match="cannot be written"):
        SoundFile(tmp_path / "missing" / "a.wav")
