"""What a voice is to the model is made once, kept, and made again when it was damaged."""

from __future__ import annotations

import pytest
import torch
from checkpoint import write
from languages import Language
from options import Options
from voices import KEPT

from tests.recordings import record
from voice_worker import BackendError, Sample, Voice

DIGEST = "ab" * 32


def cloned(path, cache=None, digest=DIGEST):
    return Voice(samples=(Sample(path),), digest=digest, cache=cache)


def fresh(folder):
    """The voices of a worker that has just started."""
    return Language.load("english", Options(model=folder)).voices


@pytest.fixture
def encoded(monkeypatch):
    """How often a recording was listened to."""
    from pocket_tts import TTSModel

    times, encode = [], TTSModel._encode_audio
    monkeypatch.setattr(
        TTSModel, "_encode_audio", lambda model, sound: (times.append(1), encode(model, sound))[1]
    )
    return times


def same(one, other):
    return all(torch.equal(one[n][k], other[n][k]) for n in one for k in ("cache", "offset"))


def test_a_recording_is_listened_to_once(folder, recording, tmp_path, encoded):
    voices, cache = fresh(folder), tmp_path / "cache"
    state = voices.of(cloned(recording, cache))
    assert voices.of(cloned(recording, cache)) is state
    assert len(encoded) == 1
    (kept,) = cache.iterdir()
    assert kept.name.startswith(f"{DIGEST}.pocket_tts-english-")
    assert kept.suffix == ".safetensors"
    # Another process finds it, even when the recording is gone.
    recording.unlink()
    assert same(fresh(folder).of(cloned(recording, cache)), state)
    assert len(encoded) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_kept_voice_that_is_damaged_is_made_again(folder, recording, tmp_path, content, encoded):
    cache = tmp_path / "cache"
    state = fresh(folder).of(cloned(recording, cache))
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-100] if content is None else content)
    assert same(fresh(folder).of(cloned(recording, cache)), state)
    assert len(encoded) == 2
    assert same(fresh(folder).of(cloned(recording, cache)), state)
    assert len(encoded) == 2, "the damaged one was replaced"


def test_a_voice_kept_for_other_weights_is_not_used(folder, recording, tmp_path, encoded):
    cache = tmp_path / "cache"
    fresh(folder).of(cloned(recording, cache))
    Language.load("german", Options(("german",), folder)).voices.of(cloned(recording, cache))
    assert len(encoded) == 2
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_no_speech(folder, recording, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert fresh(folder).of(cloned(recording, tmp_path / "cache"))


def test_several_samples_are_one_voice(folder, recording, tmp_path):
    voices, other = fresh(folder), record(tmp_path / "other.wav", 2.0, level=0.5)
    one = voices.of(cloned(recording))
    both = voices.of(Voice(samples=(Sample(recording), Sample(other)), digest="cd" * 32))
    length = {n: part["cache"].shape[2] for n, part in both.items()}
    assert all(length[n] > one[n]["cache"].shape[2] for n in one)


def test_only_the_voices_used_last_stay_in_memory(folder, recording):
    voices = fresh(folder)
    for count in range(KEPT + 3):
        voices.of(cloned(recording, digest=f"{count:064x}"))
    assert len(voices._states) == KEPT


def test_a_recording_longer_than_is_of_use_is_cut(folder, tmp_path):
    voices = fresh(folder)
    long = voices.of(cloned(record(tmp_path / "long.wav", 45.0)))
    frames = next(iter(long.values()))["cache"].shape[2]
    assert 370 <= frames <= 380


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"seconds": 0.4}, "0.4 s"),
        ({"level": 0.0}, "silent"),
        ({"rate": 16_000}, "16000 Hz"),
    ],
)
def test_a_recording_of_no_use_says_why(english, tmp_path, made, words):
    with pytest.raises(BackendError, match=words) as failure:
        english.voices.of(cloned(record(tmp_path / "bad.wav", **made), digest="ef" * 32))
    assert failure.value.code == "bad_sample"


@pytest.mark.parametrize("content", [None, b"", b"RIFF nonsense"])
def test_a_recording_that_cannot_be_read_says_so(english, tmp_path, content):
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError, match=r"bad\.wav cannot be read") as failure:
        english.voices.of(cloned(path, digest="ef" * 32))
    assert failure.value.code == "bad_sample"


def test_a_voice_of_another_engine_is_unknown(english):
    with pytest.raises(BackendError, match="alba, marius") as failure:
        english.voices.of(Voice(speaker="af_heart"))
    assert failure.value.code == "unknown_voice"


def test_weights_that_cannot_clone_say_so_and_how_to_get_others(tmp_path, recording):
    """Those that need no login have an encoder of zeros."""
    write(tmp_path, "english", clones=False)
    language = Language.load("english", Options(model=tmp_path))
    assert not language.clones
    with pytest.raises(BackendError, match="accept the terms"):
        language.voices.of(cloned(recording))
    assert language.voices.of(Voice(speaker="alba"))


def test_a_damaged_speaker_is_told(folder, tmp_path):
    write(tmp_path, "english")
    state = tmp_path / "languages" / "english" / "embeddings" / "marius.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(BackendError, match=r"marius\.safetensors is damaged"):
        fresh(tmp_path).of(Voice(speaker="marius"))
