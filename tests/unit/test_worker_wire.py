"""Voices and backend infos on their way through a message."""

from pathlib import Path

import msgpack
import pytest

from voice_worker import BackendInfo, Sample, Speaker, Voice
from voice_worker.wire import info_from_map, info_to_map, voice_from_map, voice_to_map

FULL_VOICE = Voice(
    speaker="ann",
    samples=(Sample(Path("a.wav"), "hello"), Sample(Path("b.wav"))),
    design="a calm old man",
    digest="0f" * 32,
    cache=Path("prompts"),
)
FULL_INFO = BackendInfo(
    sample_rate=22_050,
    languages=("en", "de-AT"),
    speakers=(Speaker("ann", "Ann", "en-US", "female"), Speaker("bob")),
    default_speaker="ann",
    speaker_pattern="ann\\+.*",
    clones=True,
    tags=("laugh",),
    options=("speed",),
    word_timing=True,
    streams_text=True,
    slots=32,
    max_chars=300,
    device="cuda:0",
    memory_mb=512,
)


@pytest.mark.parametrize("voice", [Voice(), FULL_VOICE])
def test_a_voice_survives_the_pipe(voice):
    assert voice_from_map(msgpack.unpackb(msgpack.packb(voice_to_map(voice)))) == voice


@pytest.mark.parametrize("info", [BackendInfo(sample_rate=24_000), FULL_INFO])
def test_an_info_survives_the_pipe(info):
    assert info_from_map(msgpack.unpackb(msgpack.packb(info_to_map(info)))) == info


def test_what_is_absent_has_its_default():
    assert voice_from_map({}) == Voice()
    assert info_from_map({"sample_rate": 8000}) == BackendInfo(sample_rate=8000)


def test_keys_of_a_later_version_are_ignored():
    assert voice_from_map({"mood": "sad"}) == Voice()
    assert info_from_map({"sample_rate": 8000, "mood": "sad"}) == BackendInfo(sample_rate=8000)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"speaker": 5}, "voice.speaker must be a string, not int"),
        ({"samples": "a.wav"}, "voice.samples must be a list"),
        ({"samples": ["a.wav"]}, "maps with a path"),
        ({"samples": [{"transcript": "x"}]}, "maps with a path"),
        ({"samples": [{"path": "a.wav", "transcript": 5}]}, "voice.transcript must be a string"),
        ({"cache": b"x"}, "voice.cache must be a string"),
    ],
)
def test_a_malformed_voice_names_the_key(value, says):
    with pytest.raises(ValueError, match=says):
        voice_from_map(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "info.sample_rate is missing"),
        ({"sample_rate": True}, "info.sample_rate must not be bool"),
        ({"sample_rate": 8000, "languages": "en"}, "info.languages must be a list"),
        ({"sample_rate": 8000, "tags": [5]}, "info.tags must hold strings"),
        ({"sample_rate": 8000, "speakers": ["ann"]}, "info.speakers must hold maps"),
        ({"sample_rate": 8000, "speakers": [{"id": 5}]}, "info.speakers must hold maps"),
        ({"sample_rate": 8000, "speakers": [{"name": "Ann"}]}, "without an id"),
        ({"sample_rate": 8000, "clones": 1}, "info.clones must not be int"),
        ({"sample_rate": 8000, "default_speaker": 1}, "info.default_speaker must not be int"),
        ({"sample_rate": 8000, "memory_mb": "1"}, "info.memory_mb must not be str"),
    ],
)
def test_a_malformed_info_names_the_key(value, says):
    with pytest.raises(ValueError, match=says):
        info_from_map(value)
