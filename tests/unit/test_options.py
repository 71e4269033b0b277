"""What a client may ask a backend for: options, languages, instructions, another's voice."""

from __future__ import annotations

import pytest

from voice_server.core import wire
from voice_server.core.errors import RequestError, UnknownOption
from voice_server.core.options import check_language, job_params
from voice_server.core.voices import owners
from voice_worker.backend import BackendInfo, Speaker

INFO = BackendInfo(
    sample_rate=24_000,
    languages=("en", "pt-BR", "yue"),
    speakers=(Speaker("Heart"),),
    speaker_pattern=r"mix-\d+",
    options=("speed",),
)


@pytest.mark.parametrize(
    "tag", ["en", "EN", "en-GB", "en_US", "pt", "pt-PT", "yue", "auto", "English"]
)
def test_a_language_it_speaks_is_let_through_whatever_its_region(tag: str) -> None:
    check_language(tag, "mine", INFO)


@pytest.mark.parametrize("tag", ["de", "tlh", "de-DE", "e", "", "-en"])
def test_a_language_it_does_not_speak_is_refused_with_those_it_does(tag: str) -> None:
    with pytest.raises(RequestError, match=r"'mine' does not speak .*en, pt-BR, yue") as caught:
        check_language(tag, "mine", INFO)
    assert (caught.value.code, caught.value.status) == ("unsupported_language", 400)


def test_a_backend_that_names_no_language_is_asked_itself() -> None:
    check_language("tlh", "whisper", BackendInfo(sample_rate=24_000, languages=()))


def test_the_languages_of_one_that_has_hundreds_are_counted() -> None:
    many = BackendInfo(sample_rate=24_000, languages=tuple(f"a{chr(97 + n)}" for n in range(20)))
    with pytest.raises(RequestError, match="al and 8 more"):
        check_language("zz", "many", many)


def test_a_job_gets_what_was_asked_for_and_the_language() -> None:
    asked = wire.Configure(opts={"speed": 2}, language="en-GB")
    assert job_params(asked, "mine", INFO) == {"speed": 2, "language": "en-GB"}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"opts": {"sped": 2}}, "unknown_option"),
        ({"opts": {"speed": float("nan")}}, "bad_option"),
        ({"opts": {"speed": 2**64}}, "bad_option"),
        ({"opts": {"speed": -(10**30)}}, "bad_option"),
        ({"instructions": "whisper"}, "unknown_option"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(asked: dict, code: str) -> None:
    with pytest.raises(UnknownOption, match=r"mine|speed") as caught:
        job_params(wire.Configure(**asked), "mine", INFO)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Heart", "; 'mine', 'twin' have it"),
        ("heart", "; 'mine', 'twin' have it"),
        ("mix-7", "; 'mine', 'twin' have it"),
        ("low", "; backend 'tone' has it"),
        ("nobody", ""),
        (None, ""),
    ],
)
def test_a_voice_of_other_backends_is_told_with_their_names(name: str | None, says: str) -> None:
    tone = BackendInfo(sample_rate=24_000, speakers=(Speaker("low"),))
    assert owners(name, {"mine": INFO, "tone": tone, "twin": INFO}) == says
