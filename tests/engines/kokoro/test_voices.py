"""Names, mixtures, the language that follows from them, and files that are no voices."""

from __future__ import annotations

import pickle
import re
import shutil
from collections import Counter

import pytest
import torch
from checkpoint import VOICES, style
from voices import DEFAULT, LANGUAGES, NAMES, Part, Voices, code_of

from voice_worker import BackendError


@pytest.fixture(scope="module")
def voices(folder):
    return Voices(folder)


def test_there_are_54_voices_in_nine_languages():
    assert len(NAMES) == len(set(NAMES)) == 54
    assert {name[0] for name in NAMES} == set(LANGUAGES)
    assert Counter(name[0] for name in NAMES)["a"] == 20
    assert NAMES[0] == DEFAULT == "af_heart"
    assert set(VOICES) <= set(NAMES)


def test_every_voice_says_who_it_is(voices):
    told = {speaker.id: speaker for speaker in voices.speakers()}
    assert set(told) == set(VOICES), "those of the folder"
    assert (told["bf_emma"].language, told["bf_emma"].gender) == ("en-GB", "female")
    assert (told["am_adam"].name, told["am_adam"].gender) == ("Adam", "male")


def test_a_mixture_is_the_weighted_sum_of_its_voices(voices):
    mixture = voices.mixture("af_heart*0.6+bella*0.4")
    assert mixture == (Part("af_heart", 0.6), Part("af_bella", 0.4))
    expected = 0.6 * style("af_heart") + 0.4 * style("af_bella")
    assert torch.allclose(voices.pack(mixture), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("heart", [("af_heart", 1)]),
        ("AF_Heart", [("af_heart", 1)]),
        ("af_heart+bf_emma", [("af_heart", 0.5), ("bf_emma", 0.5)]),
        ("af_heart*3+adam", [("af_heart", 0.75), ("am_adam", 0.25)]),
        ("ef_dora+dora", [("ef_dora", 0.5), ("ef_dora", 0.5)]),
        ("pf_dora+dora*0", [("pf_dora", 1), ("pf_dora", 0)]),
    ],
)
def test_names_may_be_short_and_weights_left_out(voices, text, parts):
    assert [(part.name, part.weight) for part in voices.mixture(text)] == parts


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("en-us+f3", "unknown_voice", "no mixture"),
        ("nobody", "unknown_voice", "is no voice"),
        ("af_hart", "unknown_voice", "af_heart"),
        ("dora", "unknown_voice", "more than one voice of kokoro: ef_dora, pf_dora"),
        ("af_heart*", "unknown_voice", "no mixture"),
        ("af_heart*-1", "unknown_voice", "no mixture"),
        ("af_heart*1e3", "unknown_voice", "no mixture"),
        ("af_heart+", "unknown_voice", "no mixture"),
        ("../../etc/passwd", "unknown_voice", "no mixture"),
        ("/tmp/voice.pt", "unknown_voice", "no mixture"),
        ("af_heart*0", "bad_option", "above 0"),
        ("+".join(["af_heart"] * 9), "bad_option", "at most 8"),
    ],
)
def test_what_is_no_voice_is_refused(voices, text, code, words):
    with pytest.raises(BackendError, match=re.escape(words)) as failure:
        voices.mixture(text)
    assert failure.value.code == code


def test_the_server_knows_a_mixture_when_it_sees_one(voices):
    pattern = re.compile(voices.pattern())
    for text in ("af_heart*0.6+bella*0.4", "bella", "af_heart+am_adam*2+bf_emma"):
        assert pattern.fullmatch(text)
    for text in ("nobody", "af_heart*x", "af_heart+", "+".join(["bella"] * 9), "a" * 5000):
        assert not pattern.fullmatch(text)


@pytest.mark.parametrize(
    ("language", "voice", "code"),
    [
        (None, "bf_emma", "b"),
        (None, "jf_alpha", "j"),
        ("en", "bf_emma", "b"),
        ("en", "af_heart", "a"),
        ("en-GB", "af_heart", "b"),
        ("en_us", "bf_emma", "a"),
        ("en-AU", "ff_siwis", "a"),
        ("fr-CA", "af_heart", "f"),
        ("pt", "af_heart", "p"),
        ("zh-Hans-CN", "af_heart", "z"),
    ],
)
def test_the_language_is_asked_for_or_that_of_the_voice(language, voice, code):
    assert code_of(language, voice) == code


@pytest.mark.parametrize("language", ["de", "xx", "", "english", 7])
def test_a_language_that_it_does_not_speak_is_refused(language):
    with pytest.raises(BackendError, match="en-US, en-GB, es") as failure:
        code_of(language, DEFAULT)
    assert failure.value.code == "unsupported_language"


class _Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("kind", ["pickle", "empty", "nonsense", "shape", "other"])
def test_a_file_that_is_no_voice_is_named_and_never_run(folder, tmp_path, kind):
    shutil.copytree(folder / "voices", tmp_path / "voices")
    path = tmp_path / "voices" / "af_bella.pt"
    match kind:
        case "pickle":
            torch.save({"voice": _Evil()}, path)
        case "empty":
            path.write_bytes(b"")
        case "nonsense":
            path.write_bytes(pickle.dumps("a voice"))
        case "shape":
            torch.save(torch.zeros(3, 1, 256), path)
        case "other":
            torch.save(["a", "list"], path)
    voices = Voices(tmp_path)
    with pytest.raises(BackendError, match=r"af_bella\.pt is no voice") as failure:
        voices.pack(voices.mixture("af_bella"))
    assert failure.value.code == "model_incomplete"


def test_a_folder_without_voices_says_what_to_download(tmp_path):
    with pytest.raises(BackendError, match=r"has no voices/af_heart\.pt.*hf download") as failure:
        Voices(tmp_path)
    assert failure.value.code == "model_missing"


def test_files_of_other_names_are_no_voices(folder, tmp_path):
    shutil.copytree(folder / "voices", tmp_path / "voices")
    (tmp_path / "voices" / "af_heart.pt").rename(tmp_path / "voices" / "mine.pt")
    assert "mine" not in Voices(tmp_path).names
