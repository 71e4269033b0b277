"""What a voice is to the model is made once, kept, and made again when it was damaged."""

from __future__ import annotations

import pytest
import torch
from voices import KEPT, Voices

from tests.recordings import record
from voice_worker import BackendError, Sample, Voice

DIGEST = "ab" * 32


def cloned(*paths, cache=None, digest=DIGEST):
    return Voice(samples=tuple(map(Sample, paths)), digest=digest, cache=cache)


@pytest.fixture
def encoded(model, monkeypatch):
    """How often a recording was listened to."""
    times, encode = [], model.net.model.get_audio_features
    monkeypatch.setattr(
        model.net.model,
        "get_audio_features",
        lambda *values, **more: (times.append(1), encode(*values, **more))[1],
    )
    return times


def test_a_recording_is_listened_to_once(model, recording, tmp_path, encoded):
    voices, cache = Voices(model), tmp_path / "cache"
    latents = voices.of(cloned(recording, cache=cache))
    assert latents.shape == (23, 8), "3 s are 22.5 frames"
    assert voices.of(cloned(recording, cache=cache)) is latents
    assert len(encoded) == 1
    (kept,) = cache.iterdir()
    assert kept.name.startswith(f"{DIGEST}.vibevoice-")
    assert kept.suffix == ".safetensors"
    # Another process finds it, even when the recording is gone.
    recording.unlink()
    assert torch.equal(Voices(model).of(cloned(recording, cache=cache)), latents)
    assert len(encoded) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_kept_voice_that_is_damaged_is_made_again(model, recording, tmp_path, content, encoded):
    cache = tmp_path / "cache"
    latents = Voices(model).of(cloned(recording, cache=cache))
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-100] if content is None else content)
    for _ in range(2):
        assert torch.equal(Voices(model).of(cloned(recording, cache=cache)), latents)
        assert len(encoded) == 2, "the damaged one was replaced"


def test_a_voice_kept_for_other_weights_is_not_used(model, recording, tmp_path, encoded):
    cache = tmp_path / "cache"
    Voices(model).of(cloned(recording, cache=cache))
    head = model.net.model.audio_tower.encoder.head.conv.weight.data
    head.neg_()
    try:
        Voices(model).of(cloned(recording, cache=cache))
    finally:
        head.neg_()
    assert len(encoded) == 2
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_no_speech(model, recording, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert Voices(model).of(cloned(recording, cache=tmp_path / "cache")) is not None


def test_several_samples_are_one_voice(model, recording, tmp_path):
    other = record(tmp_path / "other.wav", 2.0, level=0.5)
    assert len(Voices(model).of(cloned(recording, other))) == 38, "5 s are 37.5 frames"


def test_a_recording_longer_than_is_of_use_is_cut(model, tmp_path):
    assert len(Voices(model).of(cloned(record(tmp_path / "long.wav", 40.0)))) == 225


def test_only_the_voices_used_last_stay_in_memory(model, recording):
    voices = Voices(model)
    for count in range(KEPT + 3):
        voices._kept[f"{count:064x}"] = torch.zeros(1, 8)
    voices.of(cloned(recording))
    voices.of(cloned(recording, digest="cd" * 32))
    assert len(voices._kept) <= KEPT + 3
    assert DIGEST in voices._kept


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        ({"seconds": 0.4}, "sample_too_short", "0.4 s"),
        ({"level": 0.0}, "bad_sample", "silent"),
        ({"rate": 16_000}, "bad_sample", "16000 Hz"),
    ],
)
def test_a_recording_of_no_use_says_why(model, tmp_path, made, code, words):
    with pytest.raises(BackendError, match=words) as failure:
        Voices(model).of(cloned(record(tmp_path / "bad.wav", **made)))
    assert failure.value.code == code


@pytest.mark.parametrize("content", [None, b"", b"RIFF nonsense"])
def test_a_recording_that_cannot_be_read_says_so(model, tmp_path, content):
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError, match=r"bad\.wav cannot be read") as failure:
        Voices(model).of(cloned(path))
    assert failure.value.code == "bad_sample"


def test_without_a_recording_the_model_invents_a_voice(model):
    assert Voices(model).of(Voice()) is None
    assert Voices(model).of(Voice(speaker="default")) is None


def test_a_voice_of_another_engine_is_unknown(model):
    with pytest.raises(BackendError, match="only 'default' and clones") as failure:
        Voices(model).of(Voice(speaker="af_bella"))
    assert failure.value.code == "unknown_voice"
