"""The package's samples, times for the words, a cancel in the middle of a piece, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from kokoro import KModel, KPipeline
from model import REPO

from backend import Kokoro
from voice_worker import BackendError, Chunk, Sample, Segment, Voice

TEXT = "The quick brown fox jumps over the lazy dog."
HEART = Voice(speaker="af_heart")


def chunks(kokoro, text=TEXT, voice=HEART, seed=1, **params):
    made = kokoro.synthesize(Segment(text, voice, params, seed))
    return [chunk for chunk in made if isinstance(chunk, Chunk)]


def sound(*args, **more):
    return np.concatenate([chunk.samples for chunk in chunks(*args, **more)])


def test_what_is_heard_is_what_the_package_makes(kokoro, folder):
    """In a language that its pipeline reads without downloading anything."""
    text = "Hola, esto es una prueba de voz."
    pipeline = KPipeline(lang_code="e", repo_id=REPO, model=kokoro.model)
    torch.manual_seed(3)
    voice = str(folder / "voices" / "ef_dora.pt")
    expected = np.concatenate([made.audio.numpy() for made in pipeline(text, voice=voice)])
    assert np.array_equal(sound(kokoro, text, Voice(speaker="ef_dora"), seed=3), expected)
    assert np.abs(expected).max() > 0.01


def test_seed_speed_voice_and_language_are_heard(kokoro):
    plain = sound(kokoro)
    assert np.array_equal(plain, sound(kokoro))
    assert not np.array_equal(plain, sound(kokoro, seed=2))
    assert len(sound(kokoro, speed=0.25)) > len(plain)
    mixture = Voice(speaker="af_heart*0.6+bella*0.4")
    assert len(sound(kokoro, voice=mixture)) > 0
    assert not np.array_equal(sound(kokoro, voice=mixture), plain)
    assert len(sound(kokoro, language="fr")) > 0


def test_every_word_has_its_time(kokoro):
    text = "It is 3 o'clock, don't  wait.\nGo home (now)!"
    pieces = chunks(kokoro, text, speed=0.3)
    words = [word for piece in pieces for word in piece.words]
    spelt = [text[word.start_char : word.end_char] for word in words]
    assert spelt == ["It", "is", "3", "o'clock", "don't", "wait", "Go", "home", "now"]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= sum(len(piece.samples) for piece in pieces) / 24_000
    assert all(word.end > word.start for word in words)


def test_a_cancel_is_heeded_inside_the_model(kokoro, monkeypatch):
    """Closed at the first yield, before the model was through."""
    ended = []
    forward = KModel.forward_with_tokens

    def watched(*args):
        made = forward(*args)
        ended.append(True)
        return made

    monkeypatch.setattr(KModel, "forward_with_tokens", watched)
    monkeypatch.setattr("interruption.PATIENCE", 0.001)
    speaking = kokoro.synthesize(Segment(TEXT * 5, HEART, {"speed": 0.3}, 1))
    assert len(next(speaking)) == 0
    speaking.close()
    assert not ended
    assert len(sound(kokoro)) > 0, "the next job is not hurt"


@pytest.mark.parametrize("value", [0, 5, "fast", True, None, float("nan")])
def test_a_speed_out_of_range_is_refused(kokoro, value):
    with pytest.raises(BackendError, match=r"from 0\.25 to 4") as failure:
        sound(kokoro, speed=value)
    assert failure.value.code == "bad_option"


def test_a_cloned_voice_is_refused(kokoro, tmp_path):
    voice = Voice(samples=(Sample(tmp_path / "me.wav"),), digest="ab" * 32)
    with pytest.raises(BackendError, match="cannot clone") as failure:
        sound(kokoro, voice=voice)
    assert failure.value.code == "unknown_voice"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"modle": "x"}, "bad_option"),
        ({"device": "tpu"}, "bad_option"),
        ({"device": 3}, "bad_option"),
        ({"threads": 0}, "bad_option"),
        ({"threads": "many"}, "bad_option"),
        ({"model": "/no/such/folder"}, "model_missing"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, code):
    with pytest.raises(BackendError) as failure:
        Kokoro().load(options)
    assert failure.value.code == code


@pytest.fixture
def links(folder, tmp_path):
    """A folder of links to the model's files, to take one away."""
    (tmp_path / "copy").mkdir()
    for name in ("config.json", "kokoro-v1_0.pth", "voices"):
        (tmp_path / "copy" / name).symlink_to(folder / name)
    return tmp_path / "copy"


def load(folder):
    with pytest.raises(BackendError) as failure:
        Kokoro().load({"model": str(folder), "device": "cpu"})
    return failure.value


@pytest.mark.parametrize("name", ["config.json", "kokoro-v1_0.pth"])
def test_a_missing_file_is_named_with_what_to_download(links, name):
    (links / name).unlink()
    failure = load(links)
    assert failure.code == "model_missing"
    assert f"hf download {REPO} {name} --local-dir FOLDER" in str(failure)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_weights_are_named(links, folder, content):
    (links / "kokoro-v1_0.pth").unlink()
    if content is None:
        content = (folder / "kokoro-v1_0.pth").read_bytes()[:100_000]
    (links / "kokoro-v1_0.pth").write_bytes(content)
    failure = load(links)
    assert failure.code == "model_incomplete"
    assert str(links) in str(failure)


def test_weights_of_another_model_are_not_left_out_in_silence(links):
    """As the package does, which would then speak from noise."""
    (links / "kokoro-v1_0.pth").unlink()
    torch.save({"bert": {"module.weight": torch.zeros(3)}}, links / "kokoro-v1_0.pth")
    assert "of another model" in str(load(links))


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"vocab": {}})])
def test_a_configuration_that_is_none_is_named(links, text):
    (links / "config.json").unlink()
    (links / "config.json").write_text(text)
    assert load(links).code == "model_incomplete"


def test_nothing_is_at_hand_and_there_is_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match=f"hf download {REPO} config.json") as failure:
        Kokoro().load({})
    assert failure.value.code == "model_missing"
