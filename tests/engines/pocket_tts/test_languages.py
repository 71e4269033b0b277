"""Which model speaks, and every way in which its files can be wrong."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from languages import MODELS, NATIVE, Language, tag_of
from options import Options
from pocket_tts.utils.config import CONFIGS_DIR
from pocket_tts.utils.utils import _ORIGINS_OF_PREDEFINED_VOICES

from backend import PocketTTS
from voice_worker import BackendError, Segment, Voice


@contextmanager
def refused(code, words=""):
    with pytest.raises(BackendError, match=words) as caught:
        yield
    assert caught.value.code == code


@pytest.fixture(scope="module")
def both(folder):
    backend = PocketTTS()
    backend.info = backend.load({"model": str(folder), "languages": ["en", "german"]})
    return backend


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def spoken(backend, voice=None, **params):
    job = Segment("Hello.", voice or Voice(), params, seed=1)
    return np.concatenate(list(backend.synthesize(job)))


def test_every_model_of_the_package_has_a_language():
    names = {path.stem for path in CONFIGS_DIR.glob("*.yaml")}
    assert {tag_of(name) for name in names} == set(MODELS)
    assert set(MODELS.values()) <= names
    assert set(NATIVE) <= set(_ORIGINS_OF_PREDEFINED_VOICES)


def test_each_language_has_a_model_of_its_own(both):
    assert both.info.languages == ("en", "de")
    assert both.info.default_speaker == "alba"
    assert both.info.clones
    english, german = spoken(both, language="en"), spoken(both, language="de-AT")
    assert np.array_equal(english, spoken(both)), "the first is the default"
    assert not np.array_equal(english, german)


def test_a_speaker_speaks_its_own_language_unless_told_otherwise(both):
    juergen = Voice(speaker="juergen")
    german = spoken(both, juergen)
    assert np.array_equal(german, spoken(both, juergen, language="de"))


@pytest.mark.parametrize("tag", ["fr", "zh", "xx-YY", "", "english"])
def test_a_language_that_is_not_loaded_is_refused_with_the_remedy(both, tag):
    with refused("unsupported_language", "options.languages"):
        spoken(both, language=tag)


@pytest.mark.parametrize("value", [-1, 2.5, "hot", True, float("nan"), [1]])
def test_a_temperature_out_of_range_is_refused(both, value):
    with refused("bad_option", "from 0 to 2"):
        spoken(both, temperature=value)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"languages": ["xx"]}, "unsupported_language"),
        ({"languages": ["english_1066"]}, "model_missing"),
        ({"languages": ["en", "english_2026-04"]}, "bad_option"),
        ({"languages": []}, "bad_option"),
        ({"languages": "en"}, "bad_option"),
        ({"langauges": ["en"]}, "bad_option"),
        ({"temperature": 9}, "bad_option"),
        ({"threads": 0}, "bad_option"),
        ({"quantize": "yes"}, "bad_option"),
        ({"device": "tpu"}, "bad_option"),
        ({"device": 0}, "bad_option"),
        ({"model": "/no/such/folder"}, "model_missing"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(folder, options, code):
    with refused(code):
        PocketTTS().load({"model": str(folder), **options})


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named_with_what_to_download(copy, name):
    (copy / "languages" / "english" / name).unlink()
    with refused("model_missing", rf"has no languages/english/{name}.*hf download kyutai/pocket"):
        PocketTTS().load({"model": str(copy)})


@pytest.mark.parametrize("size", [0, 1000, -100])
def test_damaged_weights_are_named(copy, size):
    weights = copy / "languages" / "english" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with refused("model_incomplete", str(weights)):
        PocketTTS().load({"model": str(copy)})


@pytest.mark.parametrize("text", ["[", "weights_path: 3", "just words"])
def test_a_configuration_that_is_none_is_named(copy, text):
    (copy / "languages" / "english" / "config.yaml").write_text(text)
    with refused("model_incomplete", r"config\.yaml"):
        PocketTTS().load({"model": str(copy)})


def test_weights_of_another_model_are_told_apart(copy):
    (copy / "languages" / "english" / "config.yaml").unlink()  # now the package's, of full size
    with refused("model_incomplete", "cannot be loaded as english"):
        PocketTTS().load({"model": str(copy)})


def test_a_folder_without_voices_speaks_in_cloned_ones_only(copy, recording):
    from voice_worker import Sample

    shutil.rmtree(copy / "languages" / "english" / "embeddings")
    backend = PocketTTS()
    info = backend.load({"model": str(copy)})
    assert (info.speakers, info.default_speaker, info.clones) == ((), None, True)
    voice = Voice(samples=(Sample(recording),), digest="ab" * 32)
    backend.prepare(voice)
    assert len(spoken(backend, voice)) > 0
    with refused("unknown_voice"):
        spoken(backend)


def test_int8_is_the_default_on_a_cpu_and_can_be_left(folder):
    assert Options.from_map({}).quantize
    plain = Language.load("english", Options.from_map({"model": str(folder), "quantize": False}))
    small = Language.load("english", Options.from_map({"model": str(folder)}))
    layer = "transformer.layers.0.linear1"
    assert "Quantized" in str(small.model.flow_lm.get_submodule(layer))
    assert "Quantized" not in str(plain.model.flow_lm.get_submodule(layer))
