"""Cloned voices: the package's own values, kept as safetensors, refused by name when unfit."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from conditioning import FORMAT, KEPT, Conditioning, Conditionings
from safetensors import safe_open

from tests.recordings import record
from voice_worker.backend import BackendError, Sample, Voice


def voice_of(folder, *paths, digest="c" * 64):
    samples = tuple(Sample(path) for path in paths)
    return Voice(samples=samples, digest=digest, cache=folder / "cache")


def tensors_of(made: Conditioning):
    return {"speaker": made.speaker, "prompt": made.prompt, **made.decoder}


def assert_same(left: Conditioning, right: Conditioning):
    left, right = tensors_of(left), tensors_of(right)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("kind", ["turbo", "classic"])
def test_a_voice_is_what_the_package_makes_of_it(models, recording, tmp_path, kind):
    model = models[kind]
    made = Conditionings(model).of(voice_of(tmp_path, recording))
    before = model.conds
    if kind == "turbo":
        sound, _ = soundfile.read(recording, dtype="float32")
        loud = tmp_path / "loud.wav"
        sound = model.norm_loudness(sound, 24_000)
        soundfile.write(loud, sound.astype(np.float32), 24_000, subtype="FLOAT")
        model.prepare_conditionals(loud, norm_loudness=False)
    else:
        model.prepare_conditionals(recording)
    theirs, model.conds = model.conds, before
    assert_same(made, Conditioning.from_package(theirs))


def test_preparing_a_voice_leaves_the_models_own_as_it_is(models, recording, tmp_path):
    model = models["turbo"]
    before = model.conds
    Conditionings(model).of(voice_of(tmp_path, recording))
    assert model.conds is before


@pytest.mark.parametrize("kind", ["turbo", "classic"])
def test_it_is_kept_as_safetensors_and_not_made_twice(
    models, recording, tmp_path, kind, monkeypatch
):
    voice = voice_of(tmp_path, recording)
    made = Conditionings(models[kind]).of(voice)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name == f"{kind}.safetensors"
    with safe_open(file, framework="pt") as kept:
        assert kept.metadata() == {"format": FORMAT, "digest": voice.digest}
    monkeypatch.setattr(Conditionings, "_make", lambda *_: pytest.fail("made again"))
    assert_same(Conditionings(models[kind]).of(voice), made)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other digest", "a pickle"])
def test_a_damaged_one_is_made_again(models, recording, tmp_path, damage):
    voice = voice_of(tmp_path, recording)
    made = Conditionings(models["turbo"]).of(voice)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "noise": bytes(range(256)) * 4,
        "other digest": content.replace(b"c" * 64, b"d" * 64),
        "a pickle": b"\x80\x04cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    }
    file.write_bytes(changed[damage])
    assert_same(Conditionings(models["turbo"]).of(voice), made)
    with safe_open(file, framework="pt") as kept:
        assert kept.metadata()["digest"] == voice.digest


def test_one_that_cannot_be_kept_costs_time_and_not_speech(models, recording, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert Conditionings(models["turbo"]).of(voice_of(tmp_path, recording)).prompt.numel()


def test_speaking_changes_nothing_of_a_voice(models, recording, tmp_path):
    model = models["turbo"]
    made = Conditionings(model).of(voice_of(tmp_path, recording))
    before = {name: tensor.clone() for name, tensor in tensors_of(made).items()}
    with torch.inference_mode():
        model.t3.prepare_conditioning(made.for_t3(0.7))
        model.s3gen.inference(torch.tensor([1, 2, 3, 4]), ref_dict=made.for_decoder())
    for name, tensor in tensors_of(made).items():
        assert torch.equal(tensor, before[name]), name


def test_recordings_that_are_too_short_alone_are_long_enough_together(models, tmp_path):
    paths = [record(tmp_path / f"{n}.wav", 3.0, pitch=120 + 30 * n) for n in range(2)]
    with pytest.raises(BackendError, match=r"last 3\.0 s; Chatterbox needs more than 5 s") as short:
        Conditionings(models["turbo"]).of(voice_of(tmp_path, paths[0]))
    assert short.value.code == "sample_too_short"
    assert Conditionings(models["turbo"]).of(voice_of(tmp_path, *paths)).prompt.numel()
    assert Conditionings(models["classic"]).of(voice_of(tmp_path, paths[0])).prompt.numel()


@pytest.mark.parametrize("kind", ["missing", "text", "silent", "not finite"])
def test_a_recording_that_cannot_be_used_is_refused_by_name(models, tmp_path, kind):
    path = tmp_path / "sample.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 150_000).astype(np.float32)
    if kind == "text":
        path.write_text("ffconcat version 1.0\nfile secret.wav\n")
    elif kind == "silent":
        soundfile.write(path, noise * 0, 24_000)
    elif kind == "not finite":
        noise[1000] = np.nan
        soundfile.write(path, noise, 24_000, subtype="FLOAT")
    with pytest.raises(BackendError, match=r"sample\.wav") as refusal:
        Conditionings(models["turbo"]).of(voice_of(tmp_path, path))
    assert refusal.value.code == "bad_sample"


def test_voices_that_were_not_used_for_long_are_forgotten(models, recording, tmp_path):
    voices = Conditionings(models["turbo"])
    first = voices.of(voice_of(tmp_path, recording))
    for number in range(KEPT):
        voices._kept[str(number)] = first
    voices.of(Voice(samples=(Sample(recording),), digest="c" * 64, cache=tmp_path / "cache"))
    voices.of(Voice(samples=(Sample(recording),), digest="d" * 64))
    assert len(voices._kept) <= KEPT + 1
    assert "0" not in voices._kept
