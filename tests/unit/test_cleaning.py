"""What is said of what a language model writes, piece by piece, and against a Markdown parser."""

import re
from collections.abc import Iterator

import emoji
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.unit.model_output import DOCUMENTS
from voice_server.core.text.cleaning import Cleaner


def clean(text: str, size: int = 3, **options: object) -> str:
    cleaner = Cleaner(**options)  # type: ignore[arg-type]
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(cleaner.push(part) for part in parts) + cleaner.flush()


UNCHANGED = [
    "3 * 4 * 5 and 2*3*4 and 2**10",
    "snake_case_name and _private and a ** b",
    "5 < 6, a < b, x<3, x<y && y>z, a<=b, ->",
    "C#, #1, issue #12 and #hashtag",
    "2. März",
    "It was - 5 degrees - cold",
    "$5 and $10, US$ 5, costs $5–$10.",
    "~5 minutes, ~ and ~/home",
    "** unmatched, **too, `tick and _this",
    "f**** you",
    "I <3 you, List<String>, <your name>",
    "AT&T, R&D; &foo; Q&A",
    "[TODO] fix, [sic], [], arr[i][j], m[0][1], the interval [1, 5]",
    "C:\\dir\\new and it`s",
    "*.py and *.txt",
    "a | b",
    "Bonjour ! Ça va ?",
    "https and www. and http:x",
    "©™® → 5° ½ ♭",
    "می\u200cخواهم and क्\u200dष",
    "-5, --flag and — dash",
    "She said: \"Well (yes)...\" – 'no'!",
    "é e\u0301 ñ 中文 한국어 العربية",
]


@pytest.mark.parametrize("text", UNCHANGED)
def test_text_that_only_looks_like_markup_is_left_alone(text: str) -> None:
    assert clean(text) == text


CLEANED = {
    "emphasis": ("**Bold:** *it* __b__ _i_ ***bi*** ~~s~~", "Bold: it b i bi s"),
    "emphasis in CJK": ("这是**重点**内容。", "这是重点内容。"),
    "emphasis in a word": ("text**bold**", "textbold"),
    "emphasis with quotes": ('**"Quoted,"** he said', '"Quoted," he said'),
    "nested emphasis": ("**a *b* c**", "a b c"),
    "heading": ("## Title ##\nText", "Title\n\nText"),
    "underlined heading": ("Title\n=====\nText", "Title\n\nText"),
    "list": ("- one\n* two\n+ three\n• four", "one\n\ntwo\n\nthree\n\nfour"),
    "nested list": ("1. **One** – a\n   - two\n2. three", "1. One – a\n\ntwo\n\n2. three"),
    "list item that goes on": ("- one\n  more\n- two", "one\nmore\n\ntwo"),
    "text after a list": ("- one\nText", "one\n\nText"),
    "tasks": ("- [ ] open\n- [x] done", "open\n\ndone"),
    "emoji as bullets": ("✅ Fast\n✅ Cheap", "Fast\n\nCheap"),
    "quotation": ("> a\n> b\n\nc", "a\nb\n\nc"),
    "code": ("Use `x = 1` and ``a`b``.", "Use x = 1 and a`b."),
    "markup in code": ("`**x** <b> [a](b)`", "**x** <b> [a](b)"),
    "code block": ("See:\n```py\nx = 1\n```\nDone.", "See:\n\nDone."),
    "indented code block": ("1. Run:\n   ```\n   x\n   ```\n2. End", "1. Run:\n\n2. End"),
    "tilde block": ("~~~\n```\n~~~\nDone.", "Done."),
    "code block without an end": ("Hi\n\n```\nx = 1\n", "Hi\n\n"),
    "rule": ("a\n\n---\n\n* * *\nb", "a\n\nb"),
    "long rule": ("a\n\n" + "-" * 120 + "\n\nb", "a\n\nb"),
    "link": ('See [the docs](https://a.org/b_(c) "T").', "See the docs."),
    "link with emphasis": ("[**a** b](http://x.y)", "a b"),
    "reference": ("[text][ref] and [text][]\n\n[ref]: https://a.b", "text and text\n\n"),
    "image": ("![A cat](cat.png) sits. ![](x.png)", "A cat sits."),
    "image in a link": ("[![alt](i.png)](http://x.y) z", "alt z"),
    "address": ("Go to https://www.example.com/a?b=c#d, now.", "Go to example.com, now."),
    "address in brackets": ("(see www.example.org/x(y)).", "(see example.org)."),
    "address before a full stop": ("It is http://a.org/b. Yes!", "It is a.org. Yes!"),
    "angled address": ("<https://a.org/b> c", "a.org c"),
    "table": ("| a | b |\n|---|:-:|\n| **1** | `2` |\n\nEnd", "a, b\n\n1, 2\n\nEnd"),
    "empty cells": ("| |a| |", "a"),
    "footnotes": ("So[^1] it is [^n].\n\n[^1]: A note.", "So it is.\n\nA note."),
    "sources": ("Paris[1] is big [2][3]. 【4†source】", "Paris is big."),
    "linked sources": ("Big [[1]](https://a.org/b).", "Big."),
    "tags": ("<p>H<sub>2</sub>O <b>is</b></p><ul><li>a</li></ul>", "H2O is\n\na\n\n"),
    "line break": ("a<br>b\\\nc", "a\nb\nc"),
    "comments, thoughts": ("<think>hm\n\n</think>Yes<!-- no -->. <|end|>", "Yes."),
    "entities": ("&lt;b&gt; &amp;&nbsp;&#39;x&#x27;", "<b> & 'x'"),
    "escapes": ("\\*a\\* 1\\. \\#", "*a* 1. #"),
    "formulas": ("$x^2$, \\(a\\times b\\), $$\\frac{1}{2}$$", "x², a× b, 1/2"),
    "emoji": ("Hi 😀! Great 👍🏽 👨‍👩‍👧 🇩🇪 ❤️.", "Hi! Great."),
    "emoji between words": ("a😀b", "a b"),
    "emoji after a sentence": ("Done. 😀! Next", "Done. Next"),
    "keycaps": ("1️⃣ First", "1 First"),
    "controls": ("a\x00b\x07c\ufeff\u200bd\u00ade\u202ef", "abcdef"),
    "surrogates": ("a\ud83d\ude00 b\ud83dc\ude00", "a bc"),
    "split characters": ("\ud842\udfb7野家", "𠮷野家"),
    "stray joiner": ("a\u200db \u200dc", "ab c"),
    "white space": ("  a \t b\u00a0c \n\n\n\n d\r\ne\u2028f", "a b c\n\nd\ne\nf"),
    "private use": ("So\ue200cite\ue201.", "Socite."),
}


@pytest.mark.parametrize(("text", "expected"), CLEANED.values(), ids=list(CLEANED))
def test_markup_is_said_as_a_person_would_read_it(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_sounds_vanish_without_a_trace_for_backends_that_make_none() -> None:
    text = "[sigh] I can't believe it! [laugh] That's it [cough]. [clear throat], well[sneeze]yes"
    assert clean(text) == "I can't believe it! That's it. well yes"


def test_sounds_pass_to_the_backend_that_makes_them_as_it_spells_them() -> None:
    text = "[Laughs] So [throat] and [sigh] or [note]."
    assert clean(text, tags={"laugh", "clear throat"}) == "[laugh] So [clear throat] and or [note]."


def test_a_sound_in_angle_brackets_is_the_same_sound() -> None:
    assert clean("Well <laugh> yes <sigh>.", tags=("laugh",)) == "Well [laugh] yes."


def test_a_sound_that_only_the_backend_knows_passes_too() -> None:
    assert clean("Go [moo] on.", tags=("moo",)) == "Go [moo] on."


def test_ssml_passes_unchanged_but_for_controls() -> None:
    text = '<speak>**a** &amp; <break time="1s"/>\n\n 😀 [laugh]</speak>'
    assert clean(text + "\x00\x1f\ud83d", ssml=True) == text


def test_a_code_block_may_be_mentioned() -> None:
    assert (
        clean("So:\n```\nx\n```\nEnd", code_block="Code follows.") == "So:\n\nCode follows.\n\nEnd"
    )


def test_plain_prose_comes_out_with_the_token_that_brings_it() -> None:
    cleaner = Cleaner()
    for token in [
        "Hello",
        " world",
        ",",
        " it's",
        " 5",
        " o'clock",
        "!",
        " Is",
        " it",
        "?",
        " Yes",
        ".",
    ]:
        assert cleaner.push(token) == token


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Go **bo", "Go"),
        ("Go **bold**", "Go bold"),
        ("Go [x", "Go"),
        ("Go http", "Go"),
        ("Go `co", "Go"),
        ("Go <b", "Go"),
        ("Go &am", "Go"),
        ("Go $x", "Go"),
        ("Go **this is a long bold text and", "Go this is a long bold text and"),
        ("# Heading\n", "Heading\n\n"),
        ("one\n\n", "one\n\n"),
        ("[docs](", "docs"),
        ("Go on!", "Go on!"),
        ("Go - on", "Go - on"),
    ],
)
def test_only_what_may_be_markup_is_held_back(text: str, said: str) -> None:
    assert Cleaner().push(text) == said


def test_a_mark_that_is_never_closed_is_text_again() -> None:
    for text in ["Go **bo", "Go [x", "Go `co", "Go <b", "Go &am", "Go http", "Go $x", "Go \\(x"]:
        assert clean(text) == text.replace("\\", "")


def test_flushing_says_what_was_held_back_and_the_turn_goes_on() -> None:
    cleaner = Cleaner()
    assert cleaner.push("Hello *wor") == "Hello"
    assert cleaner.flush() == " *wor"
    assert cleaner.push("ld and **more** ") == "ld and more"
    assert cleaner.flush() == ""
    assert cleaner.push("text") == " text"


def test_raw_positions_lead_back_to_the_text_of_the_agent() -> None:
    raw = "Hi **big** [world](http://a.b)! `x`\n\n- item"
    cleaner = Cleaner()
    said = cleaner.push(raw) + cleaner.flush()
    assert said == "Hi big world! x\n\nitem"

    def heard(words: str) -> str:
        return raw[: cleaner.raw_position(said.index(words) + len(words))]

    assert heard("Hi") == "Hi"
    assert heard("Hi ") == "Hi "
    assert heard("big") == "Hi **big**"
    assert heard("wor") == "Hi **big** [wor"
    assert heard("world") == "Hi **big** [world](http://a.b)"
    assert heard("x") == "Hi **big** [world](http://a.b)! `x`"
    assert heard("item") == raw


def test_plain_text_costs_no_memory_for_positions() -> None:
    cleaner = Cleaner()
    for _ in range(1000):
        cleaner.push(" word word.")
    assert len(cleaner._positions) <= 1


def test_every_emoji_is_dropped_and_nothing_of_it_left_to_say() -> None:
    text_first = set("0123456789#*©®™‼⁉㊗㊙↔↕↖↗↘↙")
    left = {sequence: clean(f"a {sequence}.") for sequence in emoji.EMOJI_DATA}
    wrong = {
        sequence: said
        for sequence, said in left.items()
        if said != "a." and not set(sequence) & text_first
    }
    assert wrong == {}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_words_said_are_those_that_a_markdown_parser_finds(name: str) -> None:
    text = DOCUMENTS[name]
    for size in (1, 4, len(text)):
        assert words(clean(text, size)) == words("".join(parsed(text)))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def parsed(text: str) -> Iterator[str]:
    """What markdown-it takes for text, code spans included, blocks of code and addresses not."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for block in parser.parse(text):
        if block.type == "list_item_open":
            yield block.info
        for token in block.children or []:
            yield from inline(token)
        yield " "


def inline(token: Token) -> Iterator[str]:
    if token.type == "image":
        for child in token.children or []:
            yield from inline(child)
    elif token.type in ("text", "code_inline"):
        yield token.content
    elif token.type in ("softbreak", "hardbreak"):
        yield " "
