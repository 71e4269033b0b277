"""Where segments end, what is waited for, and what is guessed meanwhile."""

import sys
from itertools import pairwise

import pytest

from bench.segment_cases import CASES, KNOWN_MISSES, expected, text_of
from voice_server.core.segmenter import Cut, Segmenter


def segments(text: str, size: int = 1, **options: object) -> list[str]:
    return [cut.text for cut in cuts(text, size, **options)]


def cuts(text: str, size: int = 1, **options: object) -> list[Cut]:
    segmenter = Segmenter(**options)  # type: ignore[arg-type]
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return [cut for part in parts for cut in segmenter.push(part)] + segmenter.flush()


def pushed(segmenter: Segmenter, *tokens: str) -> list[str]:
    return [cut.text for token in tokens for cut in segmenter.push(token)]


@pytest.mark.parametrize("language", sorted(CASES))
def test_sentences_end_where_a_reader_ends_them(language: str) -> None:
    missed = {
        case
        for case in CASES[language]
        if segments(text_of(case), first_clause=False, language=language) != expected(case)
    }
    assert missed == KNOWN_MISSES & set(CASES[language])


def test_twelve_languages_and_more_have_at_least_five_cases_each() -> None:
    assert len(CASES) >= 12
    assert all(len(cases) >= 5 for cases in CASES.values())


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u202f", "\u3000"])
def test_white_space_of_any_kind_may_stand_before_a_full_stop(space: str) -> None:
    """sentencex 1.0.32 panics at a capital, such a space and a full stop."""
    text = f"Plan B{space}. Then go."
    for language in ("en", "de", None):
        assert " ".join(segments(text, language=language)) == text


def test_in_english_a_small_letter_is_no_initial() -> None:
    text = "Solve for x. Then read Roe v. Wade. Options: a. Eat. b. Sleep."
    expected = ["Solve for x.", "Then read Roe v. Wade.", "Options: a. Eat. b. Sleep."]
    assert segments(text, first_clause=False, language="en-US") == expected


def test_without_a_language_the_script_decides() -> None:
    all_cases = [case for cases in CASES.values() for case in cases]
    right = [c for c in all_cases if segments(text_of(c), first_clause=False) == expected(c)]
    assert len(right) / len(all_cases) > 0.95


@pytest.mark.parametrize("tag", ["de", "de-DE", "de_AT", "DE"])
def test_a_language_may_be_any_tag_of_it(tag: str) -> None:
    text = "Der 2. Weltkrieg endete. Danach war Frieden."
    assert len(segments(text, first_clause=False, language=tag)) == 2


def test_a_sentence_is_known_to_end_when_the_next_one_begins() -> None:
    segmenter = Segmenter()
    assert pushed(segmenter, "Hello", " world", ".") == []
    assert pushed(segmenter, " How") == ["Hello world."]


def test_an_empty_line_ends_a_segment_at_once() -> None:
    segmenter = Segmenter()
    assert pushed(segmenter, "A heading", "\n\n") == ["A heading"]


def test_a_full_stop_that_needs_no_space_ends_with_the_next_character() -> None:
    segmenter = Segmenter()
    assert pushed(segmenter, "你好", "。") == []
    assert pushed(segmenter, "我") == ["你好。"]


def test_what_follows_an_abbreviation_has_to_be_read_to_the_end_of_its_word() -> None:
    segmenter = Segmenter(first_clause=False)
    assert pushed(segmenter, "He lives in the U.S.", " W") == []
    assert pushed(segmenter, "e", " do") == ["He lives in the U.S."]


def test_a_title_never_ends_a_sentence() -> None:
    assert segments("I met Dr. Smith.") == ["I met Dr. Smith."]


def test_a_speech_tag_belongs_to_its_quotation() -> None:
    assert segments('"Stop!" she said. He did.') == ['"Stop!" she said.', "He did."]


def test_closing_quotes_stay_with_their_sentence() -> None:
    assert segments("“Go.” “Why?” He left.") == ["“Go.”", "“Why?”", "He left."]


def test_the_first_segment_may_end_at_a_clause_that_is_long_enough() -> None:
    text = "Well, if you look at it that way, it is simple, of course, and cheap."
    assert segments(text) == [
        "Well, if you look at it that way,",
        "it is simple, of course, and cheap.",
    ]


def test_a_clause_ends_a_segment_in_a_script_without_spaces_too() -> None:
    text = "如果你从这个角度来看这个问题，其实很简单，也很便宜。"
    assert segments(text)[0] == "如果你从这个角度来看这个问题，"


@pytest.mark.parametrize(
    "text", ["It was 1,000,000 or so people who came", "a well-known but long-winded story"]
)
def test_a_comma_in_a_number_and_a_hyphen_are_no_clause(text: str) -> None:
    assert segments(text) == [text]


def test_clauses_end_segments_only_once_and_only_when_asked() -> None:
    text = "This is a rather long clause, this is another long clause, and a third."
    assert len(segments(text)) == 2
    assert len(segments(text, first_clause=False)) == 1


def test_a_space_ends_a_segment_where_a_script_has_no_marks() -> None:
    thai = "สวัสดีครับวันนี้อากาศดีมาก ไปเที่ยวกันไหมครับ " * 3
    assert segments(thai)[0] == "สวัสดีครับวันนี้อากาศดีมาก"
    assert 1 < len(segments(thai, first_clause=False)) < 4


def test_short_lines_end_segments_and_wrapped_prose_does_not() -> None:
    assert segments("Dear John\nThank you\nBest\nAnna") == [
        "Dear John",
        "Thank you",
        "Best",
        "Anna",
    ]
    wrapped = "This is a line of prose that somebody wrapped at about\nSixty characters in."
    assert len(segments(wrapped, first_clause=False)) == 1


def test_a_segment_is_spoken_on_one_line() -> None:
    assert segments("Roses are red,\nviolets are blue.") == ["Roses are red, violets are blue."]


def test_items_of_a_list_are_segments() -> None:
    assert segments("- one\n- two\n3. three") == ["- one", "- two", "3. three"]


def test_a_segment_never_grows_beyond_its_limit() -> None:
    words = segments("word " * 300, max_chars=300)
    assert max(map(len, words)) <= 300
    assert " ".join(words) == ("word " * 300).strip()


def test_a_long_segment_is_cut_at_a_clause_then_at_a_space_then_anywhere() -> None:
    assert (
        segments("aaaa aaaa aaaa, bbbb bbbb bbbb", max_chars=20, first_clause=False)[0]
        == "aaaa aaaa aaaa,"
    )
    assert (
        segments("aaaa aaaa aaaa bbbb bbbb", max_chars=18, first_clause=False)[0]
        == "aaaa aaaa aaaa"
    )
    assert segments("a" * 25, max_chars=10, first_clause=False) == ["a" * 10, "a" * 10, "a" * 5]


@pytest.mark.parametrize("character", ["e\u0301", "क्ष", "\u1112\u1161\u11ab", "ก\u0e33"])
def test_a_forced_cut_never_divides_a_character(character: str) -> None:
    text = "x" + character * 40
    found = segments(text, max_chars=10, first_clause=False)
    assert "".join(found) == text
    assert all(segment.startswith((character, "x")) for segment in found)


def test_punctuation_never_makes_a_segment_of_its_own() -> None:
    assert segments('Yes. "') == ["Yes."]
    assert segments("... Hello there.") == ["... Hello there."]
    assert segments("***\n\nHello.\n\n---") == ["Hello."]
    assert segments("?!…") == []


def test_the_ranges_of_cuts_join_and_cover_what_is_not_spoken() -> None:
    text = '  ***\n\nYes.  "No." \n\n --- \n\nMaybe.  '
    found = cuts(text)
    assert [cut.text for cut in found] == ["Yes.", '"No."', "Maybe."]
    assert found[0].start == 0
    assert all(a.end == b.start for a, b in pairwise(found))
    assert found[-1].end == len(text)


def test_what_is_left_unspoken_after_the_last_cut_ends_at_the_position() -> None:
    segmenter = Segmenter()
    first = segmenter.push("Yes. No")[0]
    assert first == Cut("Yes.", 0, 5)
    assert segmenter.flush() == [Cut("No", 5, 7)]
    assert segmenter.push(" … ") == []
    assert segmenter.flush() == []
    assert segmenter.position == 10
    assert segmenter.push("Ok.") == []
    assert segmenter.flush() == [Cut("Ok.", 7, 13)]


def test_pending_text_is_counted_and_known_to_be_worth_speaking() -> None:
    segmenter = Segmenter()
    assert not segmenter.has_pending
    segmenter.push("  ...")
    assert segmenter.pending_chars == 3
    assert not segmenter.has_pending
    segmenter.push(" and")
    assert segmenter.has_pending
    segmenter.flush()
    assert segmenter.pending_chars == 0
    assert not segmenter.has_pending


def test_a_likely_end_is_guessed_at_its_mark_and_confirmed_by_the_next_word() -> None:
    segmenter = Segmenter()
    assert pushed(segmenter, "Hello", " world", ".") == []
    guess = segmenter.guess
    assert guess == Cut("Hello world.", 0, 12)
    (cut,) = segmenter.push(" How")
    assert (cut.text, cut.start) == (guess.text, guess.start)
    assert segmenter.guess is None


@pytest.mark.parametrize(
    ("text", "is_guessed"),
    [
        ("It is late.", True),
        ("Is it late?!", True),
        ("It is late.  ", True),
        ('He said "No."', True),
        ("现在很晚了。", True),
        ("यह है।", True),
        ("It took the most of the day,", True),
        ("It was built in 1990. ", True),
        ("I met Dr.", False),
        ("It is 3.", False),
        ('He said "No.', False),
        ("Well...", False),
        ("See e.g.", False),
        ("J.", False),
        ("It is late. a", False),
        ("It is late", False),
        ("?!", False),
    ],
)
def test_a_guess_is_made_where_the_next_word_would_confirm_it(text: str, is_guessed: bool) -> None:
    segmenter = Segmenter()
    assert segmenter.push(text) == []
    assert (segmenter.guess is not None) is is_guessed


def test_a_guess_stays_while_the_next_word_does_not_say_yet() -> None:
    segmenter = Segmenter()
    segmenter.push("It is late.")
    guess = segmenter.guess
    assert guess is not None
    assert pushed(segmenter, ' "') == []
    assert segmenter.guess == Cut(guess.text, guess.start, guess.end + 1)
    assert pushed(segmenter, "Go") == []
    assert segmenter.guess is not None
    assert pushed(segmenter, " home") == [guess.text]


def test_a_flush_confirms_a_guess() -> None:
    segmenter = Segmenter()
    segmenter.push("All done. ")
    guess = segmenter.guess
    assert guess is not None
    assert segmenter.flush() == [Cut(guess.text, guess.start, guess.end)]


def test_a_wrong_guess_is_dropped() -> None:
    segmenter = Segmenter(language="en")
    segmenter.push("We use ASP.")
    assert segmenter.guess is not None
    assert segmenter.push("NET") == []
    assert segmenter.guess is None
    assert [cut.text for cut in segmenter.flush()] == ["We use ASP.NET"]


def test_a_megabyte_without_punctuation_is_cut_and_not_kept() -> None:
    segmenter = Segmenter()
    found = segmenter.push("lorem ipsum " * 80_000)
    assert max(len(cut.text) for cut in found) <= 300
    assert segmenter.pending_chars <= 300
    assert sys.getsizeof(segmenter._buffer) < 4096


def test_lone_surrogates_and_controls_do_no_harm() -> None:
    assert segments("Yes\ud83d. No\x00. \udc00Fine.") == ["Yes\ud83d.", "No\x00.", "\udc00Fine."]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars"):
        Segmenter(max_chars=0)
