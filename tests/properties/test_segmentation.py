"""Cleaning and segmentation do not depend on how the text was cut, lose nothing, and are linear."""

import sys
from collections.abc import Callable, Iterable
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from voice_server.core.segmenter import Cut, Segmenter
from voice_server.core.text.cleaning import Cleaner

# Pieces that mean something next to one another, so that random texts are worth reading.
PROSE = """a I The word Dr. e.g. U.S. Mr M 3 3.14 1. 12 v1.2 ASP.NET J. R. etc. z.B. no No. me
. ! ? ... … ?! , ; : — – - " ' “ ” « » ( ) 「 」 。 ！ ？ 、 と 你好 はい नमस्ते । ؟ نعم ок Он
é e\u0301 \u0301 \u200d क्ष 👍🏽 \ud83d \ude00 *** % $""".split()
MARKUP = """* ** *** _ __ ~ ~~ ` `` ``` ~~~ [ ] ( ) ]( ! ![ [! [x] [laugh] [clear_throat] [1] [^1] ]: < > <b>
</b> <br> <p> <think> </think> <!-- --> <laugh> & &amp; &lt; \\ \\( \\) $ $$ x^2 # ## | |---| - -- ---
=== + • http https:// http: www. www.a.com h ht ttp example.com /path?x=1 😀 👨 🇩🇪 \ufe0f \u200c می
\x00 \ud83d \ude00 【 】 【1† ✅ {y} \\frac{a}{b} 2*3 snake_case . , : ! ? 5 5. a word The 你好 。""".split()
SPACE = [" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", " " * 40]

prose = st.lists(st.sampled_from([*PROSE, *SPACE]), max_size=30).map("".join)
markup = st.lists(st.sampled_from([*MARKUP, *SPACE, *PROSE]), max_size=25).map("".join)
any_text = prose | st.text(st.characters(codec=None), max_size=40)
sizes = st.lists(st.integers(1, 9), max_size=60)


def cut_up(text: str, widths: Iterable[int]) -> list[str]:
    parts, at = [], 0
    for width in widths:
        parts.append(text[at : at + width])
        at += width
    return [*parts, text[at:]]


def segmented(parts: list[str], **options: object) -> list[Cut]:
    segmenter, found = Segmenter(**options), []  # type: ignore[arg-type]
    for part in parts:
        found += segmenter.push(part)
        _ = segmenter.guess  # Looking must not change anything.
    return found + segmenter.flush()


def cleaned(parts: list[str], cleaner: Cleaner) -> str:
    return "".join(cleaner.push(part) for part in parts) + cleaner.flush()


options = st.fixed_dictionaries(
    {
        "max_chars": st.sampled_from([1, 7, 20, 300]),
        "first_clause": st.booleans(),
        "language": st.sampled_from([None, "en", "de", "ja", "ru"]),
    }
)


@given(any_text, sizes, options)
@settings(max_examples=200, deadline=None)
def test_segments_do_not_depend_on_how_the_text_was_cut(text, widths, chosen) -> None:
    assert segmented(cut_up(text, widths), **chosen) == segmented([text], **chosen)


@given(any_text, options)
@settings(max_examples=200, deadline=None)
def test_single_characters_give_the_same_segments_as_the_whole_text(text, chosen) -> None:
    assert segmented(list(text), **chosen) == segmented([text], **chosen)


@given(any_text, sizes, options)
@settings(max_examples=200, deadline=None)
def test_no_character_is_lost(text, widths, chosen) -> None:
    found = segmented(cut_up(text, widths), **chosen)
    assert all(a.end == b.start for a, b in pairwise([Cut("", 0, 0), *found]))
    for cut in found:
        source = text[cut.start : cut.end]
        assert cut.text == text[cut.text_start :][: len(cut.text)].replace("\n", " ")
        assert cut.start <= cut.text_start <= cut.end - len(cut.text)
        assert spoken(cut.text) == spoken(source)
        assert 0 < len(cut.text) <= chosen["max_chars"]
    last = found[-1].end if found else 0
    assert not spoken(text[last:])


def spoken(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


@given(any_text, sizes, options)
@settings(max_examples=200, deadline=None)
def test_a_confirmed_guess_is_the_next_segment(text, widths, chosen) -> None:
    segmenter, guess = Segmenter(**chosen), None
    for part in [*cut_up(text, widths), None]:
        if part == "":
            continue
        found = segmenter.flush() if part is None else segmenter.push(part)
        if guess is not None and found:
            first = found[0]
            assert first.start == guess.start
            # Confirmed, or proved wrong: the sentence went on, perhaps for longer than a segment,
            # which then is cut at a place before, and the marks in front of it may go.
            cut, guessed = spoken(first.text), spoken(guess.text)
            assert cut.startswith(guessed) or guessed.startswith(cut)
        guess = segmenter.guess
        assert guess is None or (guess.text and guess.end <= segmenter.position)


@given(prose, prose, options)
@settings(max_examples=200, deadline=None)
def test_a_flush_starts_afresh_and_keeps_count(before, after, chosen) -> None:
    segmenter = Segmenter(**chosen)
    found = [
        *segmenter.push(before),
        *segmenter.flush(),
        *segmenter.push(after),
        *segmenter.flush(),
    ]
    assert all(a.end == b.start for a, b in pairwise([Cut("", 0, 0), *found]))
    assert spoken("".join(cut.text for cut in found)) == spoken(before + after)
    assert segmenter.position == len(before + after)
    assert segmenter.pending_chars == 0


cleaners = st.sampled_from(
    [
        Cleaner,
        lambda: Cleaner(tags={"laugh", "clear throat"}),
        lambda: Cleaner(code_block="Code."),
        lambda: Cleaner(ssml=True),
        lambda: Cleaner(cast={"laugh": {"speaker": "1"}, "x": {"speaker": "2"}}.get),
    ]
)


@given(st.sampled_from("-=*_|`~#[<"), st.integers(90, 320), markup)
@settings(max_examples=100, deadline=None)
def test_a_row_of_marks_too_long_to_wait_for_does_not_depend_on_the_cut(mark, count, after) -> None:
    text = mark * count + after
    assert cleaned(list(text), Cleaner()) == cleaned([text], Cleaner())


@given(markup | any_text, sizes, cleaners)
@settings(max_examples=200, deadline=None)
def test_cleaned_text_does_not_depend_on_how_the_text_was_cut(text, widths, new) -> None:
    once, in_parts, by_character = new(), new(), new()
    whole = cleaned([text], once)
    assert cleaned(cut_up(text, widths), in_parts) == whole
    assert cleaned(list(text), by_character) == whole
    offsets = range(len(whole) + 2)
    positions = [once.raw_position(at) for at in offsets]
    assert [in_parts.raw_position(at) for at in offsets] == positions
    assert [by_character.raw_position(at) for at in offsets] == positions
    speakers = [once.speaker_at(at) for at in offsets]
    assert [in_parts.speaker_at(at) for at in offsets] == speakers
    assert [by_character.speaker_at(at) for at in offsets] == speakers


@given(st.lists(markup, min_size=2, max_size=4), sizes)
@settings(max_examples=200, deadline=None)
def test_flushes_between_do_not_make_the_cutting_matter(texts, widths) -> None:
    def run(cut: Callable[[str], list[str]]) -> tuple[str, list[Cut], list[int]]:
        cleaner, segmenter = Cleaner(), Segmenter(max_chars=40)
        said, found = "", []
        for text in texts:
            for part in [*cut(text), None]:
                clean = cleaner.flush() if part is None else cleaner.push(part)
                said += clean
                found += segmenter.push(clean)
                _ = segmenter.guess
            found += segmenter.flush()
        return said, found, [cleaner.raw_position(at) for at in range(len(said) + 1)]

    whole = run(lambda text: [text])
    assert run(list) == whole
    assert run(lambda text: cut_up(text, widths)) == whole
    assert whole[2] == sorted(whole[2])


@given(markup, sizes, cleaners)
@settings(max_examples=200, deadline=None)
def test_raw_positions_never_fall_and_end_with_the_text(text, widths, new) -> None:
    cleaner = new()
    whole = cleaned(cut_up(text, widths), cleaner)
    positions = [cleaner.raw_position(at) for at in range(len(whole) + 1)]
    assert positions == sorted(positions)
    assert positions[0] == 0
    assert positions[-1] == (len(text) if whole else 0)


@given(markup, sizes)
@settings(max_examples=200, deadline=None)
def test_what_was_said_stands_in_the_raw_text_up_to_its_position(text, widths) -> None:
    cleaner = Cleaner()
    whole = cleaned(cut_up(text, widths), cleaner)
    for at in range(1, len(whole) + 1):
        char = whole[at - 1]
        if char.isalnum() and "&" not in text and "\\" not in text and "$" not in text:
            assert char in text[cleaner.raw_position(at - 1) : cleaner.raw_position(at)]


@given(markup | any_text, sizes)
@settings(max_examples=200, deadline=None)
def test_what_is_held_back_is_bounded(text, widths) -> None:
    cleaner = Cleaner()
    for part in cut_up(text * 20, list(widths) * 20):
        cleaner.push(part)
        assert cleaner.held_chars <= 320


@given(
    st.text(
        st.sampled_from("abcdefgijklmnopqruvxyzäßñ.,;'\"()?-0123456789ABC你好"),
        min_size=1,
        max_size=8,
    ),
    sizes,
)
@settings(max_examples=200, deadline=None)
def test_plain_words_come_out_at_once(word, widths) -> None:
    cleaner = Cleaner()
    cleaner.push("So")
    for part in filter(None, cut_up(word, widths)):
        assert cleaner.push(" " + part) == " " + part


@given(markup)
@settings(max_examples=200, deadline=None)
def test_cleaned_text_has_sane_white_space(text) -> None:
    whole = cleaned([text], Cleaner())
    assert "  " not in whole.replace("\n", "x") or "`" in text
    assert "\n\n\n" not in whole
    assert not whole[:1].isspace()


# Work is counted in calls, of Python and of C: what a text four times as long may cost is known.


def calls(run: Callable[[], object]) -> int:
    count = 0

    def note(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


PATHOLOGICAL = [
    *(
        "x",
        ".",
        "...…",
        "(",
        "1.1.",
        "a. ",
        "A! ",
        "! ",
        " ",
        "\n",
        '"',
        "。",
        "「",
        "word ",
        "a, ",
    ),
    *(
        "*",
        "* a",
        "**a ",
        "_a ",
        "`a ",
        "[",
        "[a ",
        "](",
        "<",
        "<a b=",
        "&",
        "&a ",
        "$x ",
        "\\(",
        "~",
    ),
    *(
        "#",
        "|",
        ">",
        "-",
        "1",
        "h",
        "http:",
        "https://a.b/",
        "😀",
        "\ud83d",
        "【1",
        " ![",
        "```\nabc",
    ),
]


@pytest.mark.parametrize("mark", "[<&")
def test_a_row_of_one_mark_costs_no_more_than_its_end(mark: str) -> None:
    cleaner = Cleaner()
    cleaner.push("a ")
    said: list[str] = []
    assert calls(lambda: said.append(cleaner.push(mark * 4_000))) < 100
    assert "".join([*said, cleaner.flush()]) == " " + mark * 4_000


@pytest.mark.parametrize("unit", PATHOLOGICAL)
@pytest.mark.parametrize("width", [1, 100_000])
def test_work_grows_no_faster_than_the_text(unit: str, width: int) -> None:
    def work(length: int) -> int:
        text = (unit * length)[:length]
        parts = [text[at : at + width] for at in range(0, length, width)]

        def run() -> None:
            cleaner, segmenter, raw = Cleaner(), Segmenter(), Segmenter()
            for part in parts:
                segmenter.push(cleaner.push(part))
                raw.push(part)
                _ = segmenter.guess, raw.guess
            segmenter.push(cleaner.flush())
            segmenter.flush()
            raw.flush()

        return calls(run)

    assert work(4000) <= 4.5 * work(1000) + 500
