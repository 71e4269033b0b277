"""Cloned voices: what is kept of a recording, what is refused, and a designed voice that stays."""

from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile
import torch
from driving import Request, engine_of, speak, speak_all
from qwen3_engine import voices
from qwen3_engine.voices import FORMAT, References
from safetensors import safe_open
from test_parity import recording

from voice_worker.backend import BackendError, Sample, Voice


@pytest.fixture(scope="module")
def model(packages):
    return packages["base"].model


def voice_of(folder, *samples, digest="c" * 64):
    return Voice(samples=samples, digest=digest, cache=folder / "cache")


def test_a_reference_is_kept_as_safetensors_and_not_made_twice(model, tmp_path, monkeypatch):
    recording(tmp_path / "a.wav")
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav", "hello world"))
    made = References(model).load(voice)
    (file,) = (tmp_path / "cache").iterdir()
    with safe_open(file, framework="pt") as stored:
        assert stored.metadata()["format"] == FORMAT
        assert stored.metadata()["text"] == "hello world"
    monkeypatch.setattr(References, "_make", lambda *_: pytest.fail("made again"))
    found = References(model).load(voice)
    assert torch.equal(found.embedding, made.embedding)
    assert torch.equal(found.codes, made.codes)
    assert found.text == made.text


def test_what_another_model_kept_of_a_voice_is_not_taken(model, tmp_path):
    recording(tmp_path / "a.wav")
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav", "hello world"))
    made = References(model).load(voice)
    weight = next(model.speaker_encoder.parameters()).data
    before = weight.clone()
    weight *= 2
    try:
        trained = References(model).load(voice)
    finally:
        weight.copy_(before)
    assert not torch.equal(trained.embedding, made.embedding)
    assert torch.equal(References(model).load(voice).embedding, made.embedding)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other digest"])
def test_a_damaged_cache_is_made_again(model, tmp_path, damage):
    recording(tmp_path / "a.wav")
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav", "hello world"))
    made = References(model).load(voice)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "noise": bytes(range(256)) * 4,
        "other digest": content.replace(b"c" * 64, b"d" * 64),
    }
    file.write_bytes(changed[damage])
    again = References(model).load(voice)
    assert torch.equal(again.codes, made.codes)
    with safe_open(file, framework="pt") as stored:
        assert torch.equal(stored.get_tensor("codes").long(), made.codes)
        assert stored.metadata()["digest"] == voice.digest


def test_a_cache_that_cannot_be_written_costs_time_and_not_speech(model, tmp_path):
    recording(tmp_path / "a.wav")
    (tmp_path / "cache").write_text("a file where a folder should be")
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav"))
    assert References(model).load(voice).codes is None


def test_several_recordings_make_one_voice(model, tmp_path):
    sounds = [recording(tmp_path / f"{n}.wav", pitch=120 + 40 * n) for n in range(3)]
    samples = [Sample(tmp_path / f"{n}.wav", text) for n, text in enumerate(("one", None, "two"))]
    made = References(model).load(voice_of(tmp_path, *samples))
    each = [model.extract_speaker_embedding(sound, 24_000) for sound in sounds]
    torch.testing.assert_close(made.embedding, torch.stack(each).mean(0))
    assert made.text == "one two", "only what has a transcript can be shown to the model"
    frames = -(-len(sounds[0]) // 1920)
    assert made.codes.shape == (2 * frames, 16)


def test_a_reference_grows_no_longer_than_its_limit(model, tmp_path):
    for number in range(4):
        recording(tmp_path / f"{number}.wav", seconds=6.0, pitch=120 + 40 * number)
    samples = [Sample(tmp_path / f"{n}.wav", f"number {n}") for n in range(4)]
    made = References(model).load(voice_of(tmp_path, *samples))
    assert len(made.codes) == 2 * 75
    assert made.text == "number 0 number 1"


def test_of_a_very_long_recording_only_the_speaker_is_taken(model, tmp_path, monkeypatch):
    """Its codes would fill the context. A voice may have up to five minutes."""
    monkeypatch.setattr(voices, "MAX_TRANSCRIBED_SECONDS", 4.0)
    recording(tmp_path / "long.wav", seconds=5.0)
    recording(tmp_path / "short.wav", seconds=1.6)
    long = Sample(tmp_path / "long.wav", "the quick")
    made = References(model).load(Voice(samples=(long,)))
    assert made.codes is None
    assert not made.text
    both = Voice(samples=(long, Sample(tmp_path / "short.wav", "brown fox")))
    assert References(model).load(both).text == "brown fox"


@pytest.mark.parametrize("kind", ["missing", "text", "short", "silent", "rate"])
def test_a_recording_that_cannot_be_used_is_refused_by_name(model, tmp_path, kind):
    path = tmp_path / "sample.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    if kind == "text":
        path.write_text("ffconcat version 1.0\nfile secret.wav\n")
    elif kind == "short":
        soundfile.write(path, noise[:4800], 24_000)
    elif kind == "silent":
        soundfile.write(path, noise * 0, 24_000)
    elif kind == "rate":
        soundfile.write(path, noise, 16_000)
    with pytest.raises(BackendError, match=r"sample\.wav") as refusal:
        References(model).load(voice_of(tmp_path, Sample(path)))
    assert refusal.value.code == "bad_sample"


def test_two_turns_of_a_clone_compute_its_prompt_once(packages, tmp_path, monkeypatch):
    recording(tmp_path / "a.wav")
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav", "hello world"))
    engine = engine_of(packages["base"], slots=2)
    prompt = engine.prepare(voice)
    monkeypatch.setattr(engine.parts.prompts, "_compute", lambda _: pytest.fail("made again"))
    assert engine.prepare(voice) is prompt
    assert speak(engine, Request("the quick", voice, {"temperature": 0})).samples.size


def test_a_clone_with_its_transcript_says_the_same_whenever_its_text_comes(packages, tmp_path):
    """Else a turn whose worker died would go on elsewhere in another speech."""
    recording(tmp_path / "a.wav", seconds=2.4)
    voice = Voice(samples=(Sample(tmp_path / "a.wav", "hello world"),))
    text = "The quick fox jumps over it. And then hello. Hello world of speech"
    request = Request(text, voice, {"temperature": 0.5}, seed=2)
    engine = engine_of(packages["base"], slots=1, frames_per_token=1.0)
    whole = speak(engine, request)
    assert len(whole.pieces) > 1
    for number in range(3):
        (late,) = speak_all(engine, [request], random.Random(number))
        assert late.pieces == whole.pieces
        assert np.array_equal(late.samples, whole.samples)


def test_prompts_that_were_not_used_for_long_are_forgotten(packages):
    engine = engine_of(packages["custom_voice"], slots=1, prompt_cache=2)
    first = engine.prepare(Voice(speaker="ryan"))
    for name in ("vivian", "eric"):
        engine.prepare(Voice(speaker=name))
    assert engine.prepare(Voice(speaker="eric")) is engine.prepare(Voice(speaker="eric"))
    assert engine.prepare(Voice(speaker="ryan")) is not first


def test_long_instructions_do_not_fill_the_device(packages):
    engine = engine_of(packages["voice_design"], slots=1, max_length=128)
    voices = [Voice(design=f"{number} " + "a " * 10) for number in range(30)]
    made = [engine.prepare(voice) for voice in voices]
    kept = [engine.parts.prompts.find(engine.voices._key(v, engine.defaults)) for v in voices]
    assert sum(prompt.length for prompt in kept if prompt) <= 4 * 128
    assert kept[-1] is made[-1]
    assert kept[0] is None


@pytest.mark.parametrize(
    ("seconds", "transcript"), [(8.0, "a " * 60), (8.0, "hello"), (0.8, "a " * 60)]
)
def test_a_reference_too_long_for_the_context_is_refused(packages, tmp_path, seconds, transcript):
    recording(tmp_path / "a.wav", seconds)
    voice = voice_of(tmp_path, Sample(tmp_path / "a.wav", transcript))
    engine = engine_of(packages["base"], slots=1, max_length=64)
    with pytest.raises(BackendError, match="max_length") as refusal:
        engine.admit(1, voice, {}, 0)
    assert refusal.value.code == "prompt_too_long"


def test_a_designed_voice_saved_as_a_recording_is_a_clone_that_stays(packages, tmp_path):
    """Design once, keep the sound and its text, and let a Base model go on from them."""
    text = "hello world of speech"
    designer = engine_of(packages["voice_design"], slots=1, frames_per_token=2.0)
    designed = speak(designer, Request(text, Voice(design="a warm voice"), seed=4))
    soundfile.write(tmp_path / "designed.wav", designed.samples, 24_000, subtype="FLOAT")
    voice = voice_of(tmp_path, Sample(tmp_path / "designed.wav", text))
    engine = engine_of(packages["base"], slots=1, frames_per_token=2.0)
    first = speak(engine, Request("the quick brown fox", voice, seed=1))
    again = speak(engine, Request("the quick brown fox", voice, seed=1))
    assert first.is_finished
    assert first.frames == again.frames


def test_a_turn_without_a_design_is_spoken_in_the_default_one(packages):
    engine = engine_of(packages["voice_design"], slots=1, design="a deep voice")
    assert engine.prepare(Voice()) is engine.prepare(Voice(design="a deep voice"))


def test_instructions_describe_the_voice_or_add_to_its_description(packages):
    engine = engine_of(packages["voice_design"], slots=1)
    assert engine.voices.takes_instructions

    def codes(design, **params):
        voice = Voice(design=design)
        return speak(engine, Request("the quick", voice, {"temperature": 0, **params})).frames

    shouted = codes("a deep voice Shout!")
    assert codes("a deep voice", instructions="Shout!") == shouted
    assert codes(None, instructions="a deep voice Shout!") == shouted
    assert codes("a deep voice") != shouted
    assert engine.prepare(Voice(design="a high voice")) is not engine.prepare(Voice())


def test_a_model_of_0_6b_leaves_instructions_out_as_the_package_does(packages, monkeypatch):
    wrapper = packages["custom_voice"]
    for size, is_taken in (("1b7", True), ("0b6", False)):
        monkeypatch.setattr(wrapper.model.config, "tts_model_size", size)
        engine = engine_of(wrapper, slots=1)
        assert engine.voices.takes_instructions == is_taken
        request = Request("the quick", Voice(speaker="ryan"), {"temperature": 0})
        plain = speak(engine, request).frames
        request.params["instructions"] = "Shout!"
        assert (speak(engine, request).frames != plain) == is_taken
