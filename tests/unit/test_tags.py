"""Which bracketed words are sounds, and how a backend spells them."""

import pytest

from voice_server.core.text.tags import SOUNDS, Tags


@pytest.mark.parametrize(
    "tag",
    ["laugh", "chuckle", "sigh", "cough", "throat", "sneeze", "sniff", "gasp", "groan", "shush"],
)
def test_every_documented_sound_is_known(tag: str) -> None:
    assert Tags().spelling(tag) == ""
    assert Tags([tag]).spelling(tag) == tag


def test_spellings_of_one_sound_are_one_sound() -> None:
    assert Tags(["clear throat"]).spelling("throat") == "clear throat"
    assert Tags(["throat"]).spelling("Clears  Throat") == "throat"
    assert Tags(["laugh"]).spelling("LAUGHTER") == "laugh"


def test_a_backend_may_declare_two_spellings_of_a_sound() -> None:
    tags = Tags(["laugh", "laughing"])
    assert tags.spelling("laughing") == "laughing"
    assert tags.spelling("laughs") == "laugh"


def test_a_word_that_is_no_sound_is_ordinary_text() -> None:
    assert Tags(["laugh"]).spelling("note") is None
    assert Tags().spelling("") is None


def test_no_spelling_means_two_sounds() -> None:
    spellings = [spelling for sound in SOUNDS for spelling in sound]
    assert len(spellings) == len(set(spellings))
