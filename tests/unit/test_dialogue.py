"""``[name]`` in the text: who goes on, from which word, and what is no name."""

from __future__ import annotations

import pytest

from voice_server.core.events import Confirm, Drop, SegmentEnded, Synthesize, TurnOptions
from voice_server.core.session import SpeechSession
from voice_server.core.text.cleaning import Cleaner
from voice_server.core.wire import Done, Token

OBAMA, ANNA = {"digest": "obama"}, {"digest": "anna"}
CAST = {"obama": OBAMA, "Anna": ANNA, "the old man": {"digest": "man"}}


def spoken(*tokens: str, cast: object = CAST.get) -> list[tuple[str | None, str]]:
    """Who says what of a turn, segment by segment, once all guesses were settled."""
    session = SpeechSession(TurnOptions(cast=cast, lookahead=1_000))  # type: ignore[arg-type]
    told: dict[int, tuple[str | None, str]] = {}
    for event in [*map(Token, tokens), Done()]:
        for command in session.handle(event, 0.0):
            match command:
                case Synthesize(segment, text, _, voice):
                    told[segment] = (None if voice is None else voice["digest"], text)
                case Drop(segment):
                    del told[segment]
                case Confirm():
                    pass
    return list(told.values())


SCRIPTS = [
    ("[obama] Hello. [Anna] Hi.", [("obama", "Hello."), ("anna", "Hi.")]),
    ("I begin. [obama] I go on.", [(None, "I begin."), ("obama", "I go on.")]),
    ("[obama] One. Two. [Anna] Three", [("obama", "One."), ("obama", "Two."), ("anna", "Three")]),
    ("[obama]: Hello.\n[Anna]: Hi.", [("obama", "Hello."), ("anna", "Hi.")]),
    ("**[obama]:** Hello.\n\n**[Anna]** Hi.", [("obama", "Hello."), ("anna", "Hi.")]),
    ("He said [obama] yes we can.", [(None, "He said"), ("obama", "yes we can.")]),
    ("[the old man] Ah. [ Anna ] Oh.", [("man", "Ah."), ("anna", "Oh.")]),
    ("[obama] [Anna] Both.", [("anna", "Both.")]),
    ("[obama] Hello. [Anna]", [("obama", "Hello.")]),
    # Nobody of that name: it goes like the tag of a sound that is not made.
    ("[bob] Hello [sic] there. [zoe]", [(None, "Hello there.")]),
    ("[obama] Well. [bob] So.", [("obama", "Well."), ("obama", "So.")]),
    ("[laugh] [obama] Ha. [sneeze]", [("obama", "Ha.")]),
    # Ordinary text.
    ("A list[obama] of [two words here].", [(None, "A list[obama] of [two words here].")]),
    ("See [obama](https://example.com/x) there.", [(None, "See obama there.")]),
    ("`[obama]` is how it is written.", [(None, "[obama] is how it is written.")]),
]


@pytest.mark.parametrize(("text", "said"), SCRIPTS)
def test_a_name_in_brackets_hands_over(text: str, said: list[tuple[str | None, str]]) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize(("text", "said"), SCRIPTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_how_the_text_was_cut_makes_no_difference(
    text: str, said: list[tuple[str | None, str]], size: int
) -> None:
    assert spoken(*(text[at : at + size] for at in range(0, len(text), size))) == said


def test_without_dialogue_a_name_in_brackets_is_ordinary_text() -> None:
    assert spoken("[obama] Hello.", cast=None) == [(None, "[obama] Hello.")]


def test_a_sound_that_the_backend_makes_is_nobodys_name() -> None:
    cleaner = Cleaner(tags=("laugh",), cast={"laugh": OBAMA}.get)
    assert cleaner.push("[laugh] Yes. ") + cleaner.flush() == "[laugh] Yes."
    assert cleaner.speaker_at(0) is None


def test_the_text_that_was_heard_holds_the_name_of_who_said_it() -> None:
    """What an interruption tells is the text as it was sent."""
    cleaner = Cleaner(cast=CAST.get)
    text = "[obama] Hello. [Anna] Hi."
    clean = cleaner.push(text) + cleaner.flush()
    assert clean == "Hello.\n\nHi."
    assert text[: cleaner.raw_position(len("Hello."))] == "[obama] Hello."
    assert text[: cleaner.raw_position(len(clean))] == text


def test_a_name_after_an_end_that_was_guessed_is_heeded() -> None:
    """The guess is at work before the name is there; what it said stays in the voice it had."""
    session = SpeechSession(TurnOptions(cast=CAST.get))
    (first,) = session.handle(Token("[obama] Hello there."), 0.0)
    assert isinstance(first, Synthesize)
    assert (first.is_guess, first.voice) == (True, OBAMA)
    confirm, second = session.handle(Token(" [Anna] Hi there. So"), 0.0)
    assert confirm == Confirm(first.segment)
    assert isinstance(second, Synthesize)
    assert (second.text, second.voice) == ("Hi there.", ANNA)
    assert session.handle(SegmentEnded(first.segment), 0.0) == []
