"""Text cut anywhere gives the tokens of the whole text, and no token is ever taken back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qwen3_engine.text import TextEncoder, TextFeed

PIECES = [
    *("Hello", " world", "’s", "'s", "'", "I'", "ll", " ", "  ", "\n", " \n", "\n\n ", "\t", "..."),
    *("3", ".14", "1,000", "!", "?!", '."', "é", "e\u0301", "\u0301", "\u0323", "ñ", "你好", "。"),
    *(
        "こんにちは",
        "가",
        "\u1100\u1161",
        "👍🏽",
        "<|im_end|>",
        "<tts_pad>",
        "<|im_",
        "end|>",
        "a\u200db",
    ),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


@pytest.fixture(scope="module")
def encoder(packages):
    return TextEncoder(packages["base"].processor.tokenizer)


@st.composite
def cut_texts(draw):
    text = draw(texts.filter(lambda t: all(not 0xD800 <= ord(c) < 0xE000 for c in t)))
    marks = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    edges = [0, *marks, len(text)]
    return text, [text[a:b] for a, b in pairwise(edges)]


@settings(max_examples=600, deadline=None)
@given(cut_texts())
@example(("\n  \nx", list("\n  \nx")))
@example(("a!\n \n b", list("a!\n \n b")))
@example(("q\u0323\u0301 x", list("q\u0323\u0301 x")))
def test_tokens_do_not_depend_on_how_the_text_was_cut(encoder, case):
    text, chunks = case
    feed = TextFeed(encoder)
    tokens = [t for chunk in chunks for piece in feed.feed(chunk) for t in piece.tokens]
    tokens += [t for piece in feed.finish() for t in piece.tokens]
    assert tokens == encoder.tokens(encoder.normalise(text).lstrip())


@settings(max_examples=100, deadline=None)
@given(cut_texts())
def test_the_package_tokenises_plain_text_the_same(packages, encoder, case):
    text = case[0].strip()
    if "<" in text or not text:
        return
    theirs = packages["base"].processor.tokenizer(text)["input_ids"]
    assert encoder.tokens(text) == theirs


def test_a_word_is_released_as_soon_as_the_next_begins(encoder):
    feed = TextFeed(encoder)
    assert feed.feed("Hel") == []
    assert feed.feed("lo") == []
    (released,) = feed.feed(" w")
    assert list(released.tokens) == encoder.tokens("Hello")
    assert [list(p.tokens) for p in feed.finish()] == [encoder.tokens(" w")]


def test_no_text_can_name_a_control_token(packages, encoder):
    tokenizer = packages["base"].processor.tokenizer
    controls = set(tokenizer.added_tokens_decoder)
    for name in ("<|im_end|>", "<tts_pad>", "<|im_start|>assistant\n"):
        assert controls & set(tokenizer(name)["input_ids"])
        assert not controls & set(encoder.tokens(name))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three", ["One two."]),
        ("Version 3.14 is out! Yes", ["Version 3.14 is out!"]),
        ('He said "no." Then? Yes', ['He said "no."', 'He said "no." Then?']),
        ("你好。再见！", ["你好", "你好。再见！"]),
        ("「はい。」と", ["「はい。」"]),
        ("No end here", []),
    ],
)
def test_sentence_ends_are_seen_where_white_space_follows(encoder, text, sentences):
    feed = TextFeed(encoder)
    pieces = [*feed.feed(text), *feed.finish()]
    parts = encoder.split(text)
    assert len(parts) == len(pieces)
    ends = [at for at, piece in enumerate(pieces, 1) if piece.ends_sentence]
    assert ["".join(parts[:end]) for end in ends] == sentences


def test_leading_white_space_is_not_spoken(encoder):
    feed = TextFeed(encoder)
    pieces = [*feed.feed(" \n"), *feed.feed("\n Hi"), *feed.feed(" there"), *feed.finish()]
    assert [t for p in pieces for t in p.tokens] == encoder.tokens("Hi there")
