"""Ids, names and what a worker is told, without a file or a worker."""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_server.core.errors import RequestError, UnknownVoice
from voice_server.core.voices import (
    Sample,
    Voice,
    VoiceIndex,
    check_voice_id,
    is_voice_id,
    resolve,
    slug_from_name,
    speaker_voices,
    warnings_of_length,
)
from voice_worker.backend import BackendInfo, Speaker

ESPEAK = BackendInfo(
    sample_rate=22_050,
    speakers=(Speaker("en-us", "English", "en-US"), Speaker("de", "German", "de")),
    default_speaker="en-us",
    speaker_pattern=r"[a-z-]+\+[a-z]\d",
)
TONE = BackendInfo(sample_rate=24_000, clones=True)
PATIENT = BackendInfo(sample_rate=24_000, clones=True, min_sample_seconds=5.0)
DESIGNER = BackendInfo(sample_rate=24_000, designs=True)

SAMPLES = (Sample("s1", "/d/s1.wav", "aa", "Hello."), Sample("s2", "/d/s2.wav", "bb"))
MAYA = Voice("maya_cloned", "Maya", "cloned", display_name="Maya (Cloned)", samples=SAMPLES)
DRAWN = Voice("drawn", "Drawn", "designed", design="A warm old man")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Voice", "my_voice"),
        ("Nova", "nova"),
        ("  Zoë & Łukasz!! ", "zoe_ukasz"),
        ("maya_cloned", "maya_cloned"),
        ("a" * 100, "a" * 64),
        ("../../etc/passwd", "etc_passwd"),
        ("x" * 63 + " y", "x" * 63),
    ],
)
def test_a_name_becomes_an_id(name: str, slug: str) -> None:
    assert slug_from_name(name) == slug


@given(st.text())
def test_every_name_becomes_an_id_and_always_the_same(name: str) -> None:
    slug = slug_from_name(name)
    assert is_voice_id(slug)
    assert slug == slug_from_name(name)


def test_names_without_a_latin_letter_get_different_ids() -> None:
    assert slug_from_name("Мая").startswith("voice_")
    assert slug_from_name("Мая") != slug_from_name("声")


@pytest.mark.parametrize(
    "text", ["", "A", "..", "a/b", "a\0", "é", "a b", "_a", "-a", "a" * 65, "a\n", "a.b", "%2e"]
)
def test_what_does_not_fit_the_grammar_is_no_id(text: str) -> None:
    with pytest.raises(RequestError, match="voice id") as caught:
        check_voice_id(text)
    assert caught.value.code == "bad_voice_id"


def test_a_profile_id_in_the_form_of_a_uuid_is_an_id() -> None:
    assert is_voice_id("9f0c1ef2-0000-4a6b-8d1c-2f8f5a3b7c11")


def test_no_name_is_the_default() -> None:
    assert resolve(None, "espeak", ESPEAK, VoiceIndex()) == {"speaker": "en-us"}
    assert resolve("", "espeak", ESPEAK, VoiceIndex(), default="de") == {"speaker": "de"}
    assert resolve(None, "tone", TONE, VoiceIndex()) == {}


def test_a_recording_goes_to_a_backend_that_clones() -> None:
    wire = resolve("maya_cloned", "tone", TONE, VoiceIndex([MAYA]), cache="/cache")
    assert wire["samples"] == [
        {"path": "/d/s1.wav", "transcript": "Hello."},
        {"path": "/d/s2.wav", "transcript": None},
    ]
    assert wire["digest"] == MAYA.digest
    assert wire["cache"] == f"/cache/tone/{MAYA.digest}"
    assert "speaker" not in wire


@pytest.mark.parametrize("name", ["Maya", "maya", "MAYA (cloned)", "MAYA_CLONED"])
def test_a_voice_is_found_by_its_name_too(name: str) -> None:
    assert resolve(name, "tone", TONE, VoiceIndex([MAYA]))["digest"] == MAYA.digest


def test_a_name_that_two_voices_bear_finds_neither_and_tells_their_ids() -> None:
    twin = dataclasses.replace(MAYA, id="twin")
    with pytest.raises(UnknownVoice, match=r"2 voices .* by its id: maya_cloned, twin") as caught:
        resolve("Maya", "tone", TONE, VoiceIndex([MAYA, twin]))
    assert caught.value.code == "ambiguous_name"
    assert resolve("twin", "tone", TONE, VoiceIndex([MAYA, twin]))["digest"] == MAYA.digest


def test_a_backend_that_cannot_clone_says_so_and_names_its_voices() -> None:
    with pytest.raises(
        UnknownVoice, match=r"cannot clone.*use a backend that can.*en-us"
    ) as caught:
        resolve("maya_cloned", "espeak", ESPEAK, VoiceIndex([MAYA]))
    assert caught.value.code == "voice_not_supported"


def test_a_designed_voice_needs_a_backend_that_designs() -> None:
    assert resolve("drawn", "d", DESIGNER, VoiceIndex([DRAWN]))["design"] == "A warm old man"
    with pytest.raises(UnknownVoice, match="design a voice"):
        resolve("drawn", "tone", TONE, VoiceIndex([DRAWN]))


def test_a_voice_without_a_recording_says_how_to_add_one() -> None:
    with pytest.raises(UnknownVoice, match="POST /profiles/new/samples") as caught:
        resolve("new", "tone", TONE, VoiceIndex([Voice("new", "New", "cloned")]))
    assert caught.value.code == "voice_is_empty"


def test_speakers_are_found_by_id_pattern_name_and_case() -> None:
    nothing = VoiceIndex()
    assert resolve("de", "espeak", ESPEAK, nothing) == {"speaker": "de"}
    assert resolve("DE", "espeak", ESPEAK, nothing) == {"speaker": "de"}
    assert resolve("german", "espeak", ESPEAK, nothing) == {"speaker": "de"}
    assert resolve("en-us+f3", "espeak", ESPEAK, nothing) == {"speaker": "en-us+f3"}


def test_a_voice_of_the_catalogue_wins_over_a_speaker_where_it_can_be_spoken() -> None:
    mine = dataclasses.replace(MAYA, id="de")
    both = BackendInfo(sample_rate=24_000, speakers=ESPEAK.speakers, clones=True)
    assert "samples" in resolve("de", "both", both, VoiceIndex([mine]))
    assert resolve("de", "espeak", ESPEAK, VoiceIndex([mine])) == {"speaker": "de"}


def spoken_for(*seconds: float) -> Voice:
    samples = [Sample(f"s{at}", f"/d/{at}.wav", "aa", duration=s) for at, s in enumerate(seconds)]
    return dataclasses.replace(MAYA, samples=tuple(samples))


@pytest.mark.parametrize("seconds", [(5.1,), (3.0, 2.5)])
def test_recordings_that_are_long_enough_together_are_a_voice(seconds: tuple[float, ...]) -> None:
    voice = spoken_for(*seconds)
    assert "samples" in resolve("maya_cloned", "patient", PATIENT, VoiceIndex([voice]))
    assert warnings_of_length(voice.samples, {"patient": PATIENT}) == ()


@pytest.mark.parametrize("seconds", [(5.0,), (2.0, 2.5)])
def test_a_backend_that_needs_more_recording_says_how_much(seconds: tuple[float, ...]) -> None:
    voice = spoken_for(*seconds)
    with pytest.raises(UnknownVoice, match="'patient' needs more than 5 s") as told:
        resolve("maya_cloned", "patient", PATIENT, VoiceIndex([voice]))
    assert told.value.code == "sample_too_short"
    assert "samples" in resolve("maya_cloned", "tone", TONE, VoiceIndex([voice]))


def test_a_recording_is_refused_where_nobody_can_clone_it_and_warned_of_where_somebody_can() -> (
    None
):
    samples = spoken_for(3.0).samples
    with pytest.raises(RequestError, match=r"3\.0 s") as told:
        warnings_of_length(samples, {"patient": PATIENT, "espeak": ESPEAK})
    assert told.value.code == "sample_too_short"
    (warning,) = warnings_of_length(samples, {"patient": PATIENT, "tone": TONE})
    assert "record a longer sample" in warning
    assert warnings_of_length(samples, {"espeak": ESPEAK}) == ()
    assert warnings_of_length(samples, {}) == ()


def test_an_alias_is_another_name() -> None:
    aliases = {"alloy": "de", "obama": "maya_cloned"}
    assert resolve("alloy", "espeak", ESPEAK, VoiceIndex(), aliases=aliases) == {"speaker": "de"}
    assert "samples" in resolve("obama", "tone", TONE, VoiceIndex([MAYA]), aliases=aliases)


def test_a_name_is_found_however_its_accents_are_written() -> None:
    """Files from macOS have the accents of their names apart from the letters."""
    dropped = Voice("cafe", unicodedata.normalize("NFD", "Café"), "dropped", samples=SAMPLES)
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "café")
        assert resolve(name, "tone", TONE, VoiceIndex([dropped]))["digest"] == dropped.digest


def test_a_voice_that_the_configuration_names_and_nobody_has_is_told_as_such() -> None:
    aliases = {"nova": "enn-us"}
    with pytest.raises(UnknownVoice, match=r"'enn-us'.*; backends\.yaml names it for 'nova'"):
        resolve("nova", "espeak", ESPEAK, VoiceIndex(), aliases=aliases)
    with pytest.raises(UnknownVoice, match=r"'enn-us'.*; backends\.yaml names it as the default"):
        resolve(None, "espeak", ESPEAK, VoiceIndex(), default="enn-us")


def test_an_unknown_voice_is_told_what_comes_near() -> None:
    with pytest.raises(UnknownVoice, match="near it: en-us"):
        resolve("en-usa", "espeak", ESPEAK, VoiceIndex())
    with pytest.raises(UnknownVoice, match="it has en-us, de"):
        resolve("zzz", "espeak", ESPEAK, VoiceIndex())
    with pytest.raises(UnknownVoice, match="maya_cloned"):
        resolve("maya_clone", "tone", TONE, VoiceIndex([MAYA]))


@given(st.text(max_size=300))
def test_any_name_is_a_voice_or_an_unknown_one(name: str) -> None:
    said = ""
    try:
        assert resolve(name, "espeak", ESPEAK, VoiceIndex([MAYA]))
    except UnknownVoice as exc:
        said = str(exc)
    assert len(said) < 600


def test_the_digest_follows_samples_and_transcripts_and_nothing_else() -> None:
    assert MAYA.digest == dataclasses.replace(MAYA, name="Other", tags=("x",)).digest
    assert MAYA.digest != dataclasses.replace(MAYA, samples=SAMPLES[:1]).digest
    changed = dataclasses.replace(SAMPLES[0], transcript="Hallo.")
    assert MAYA.digest != dataclasses.replace(MAYA, samples=(changed, SAMPLES[1])).digest
    assert DRAWN.digest != dataclasses.replace(DRAWN, design="A cold old man").digest


def test_the_index_forgets_names_with_their_voices() -> None:
    index = VoiceIndex([MAYA, DRAWN])
    assert index.has_name("maya")
    assert not index.has_name("maya", besides="maya_cloned")
    index.put(dataclasses.replace(MAYA, name="May", display_name=""))
    assert index.named("Maya") is None
    assert index.named("may") is not None
    index.discard("maya_cloned")
    index.discard("maya_cloned")
    assert [voice.id for voice in index] == ["drawn"]
    assert not index.has_name("may")


def test_voices_are_listed_newest_first() -> None:
    index = VoiceIndex(
        Voice(id, id, "cloned", created_at=created)
        for id, created in (("b", "2026-01-01"), ("a", "2026-01-01"), ("c", "2026-02-01"))
    )
    assert [voice.id for voice in index.ordered()] == ["c", "a", "b"]


def test_the_speakers_of_a_backend_are_listed_as_voices() -> None:
    voice = speaker_voices("espeak", ESPEAK)[1]
    assert (voice.id, voice.name, voice.kind) == ("de", "German", "builtin")
    assert (voice.language, voice.backend) == ("de", "espeak")
