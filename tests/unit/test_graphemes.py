"""Where a text may be cut without taking a character apart."""

import pytest

from voice_server.core.text.graphemes import is_safe_cut, safe_cut

WHOLE = {
    "accent": "e\u0301",
    "two accents": "e\u0301\u0323",
    "conjunct": "क्ष",
    "vowel sign": "कि",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "skin tone": "\U0001f44d\U0001f3fd",
    "variation": "\u2764\ufe0f",
    "jamo": "\u1112\u1161\u11ab",
    "syllable and jamo": "\uac00\u11a8",
    "flag": "\U0001f1e9\U0001f1ea",
    "surrogates": "\ud83d\ude00",
    "line end": "\r\n",
}


@pytest.mark.parametrize("character", WHOLE.values(), ids=list(WHOLE))
def test_a_character_is_never_cut_inside(character: str) -> None:
    text = character * 3
    for at in range(1, len(text)):
        expected = at - at % len(character)
        if expected:
            assert safe_cut(text, 0, at) == expected


@pytest.mark.parametrize("text", ["ab", "a b", "中文", "한국", "é a", "কখ"])
def test_between_letters_a_cut_is_safe_everywhere(text: str) -> None:
    assert all(safe_cut(text, 0, at) == at for at in range(1, len(text)))


def test_both_ends_of_a_text_are_safe() -> None:
    assert is_safe_cut("\u0301", 0)
    assert is_safe_cut("a\u200d", 2)


def test_an_endless_character_is_cut_all_the_same() -> None:
    assert safe_cut("e" + "\u0301" * 50, 0, 10) == 10
