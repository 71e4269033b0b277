"""Text cut anywhere gives the tokens of the whole text, and no token is ever taken back."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from checkpoint import PRE_TOKENS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qwen3_engine.text import TextEncoder, TextFeed
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

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
    tokens, ends = read(encoder, chunks)
    assert tokens == encoder.tokens(encoder.normalise(text).lstrip())
    assert ends == read(encoder, [text])[1]


def read(encoder, chunks):
    """The tokens of a text cut into ``chunks``, and how many there are at each sentence's end."""
    feed, tokens, ends = TextFeed(encoder), [], []
    for piece in [*(piece for chunk in chunks for piece in feed.feed(chunk)), *feed.finish()]:
        tokens += piece.tokens
        ends += [len(tokens)] * piece.ends_sentence
    return tokens, ends


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


@pytest.fixture(scope="module")
def clauses():
    """An encoder that knows many words of four characters, as one does that learnt Chinese."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.normalizer = normalizers.NFC()
    random_ = random.Random(5)
    corpus = ["".join(random_.choices("天气好我か", k=random_.randint(2, 9))) for _ in range(3000)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return TextEncoder(SimpleNamespace(backend_tokenizer=tokenizer))


unspaced = st.lists(
    st.sampled_from(["天", "气", "好", "我", "か", "\u3099", "，", "。", " ", "a", "𠜎", "好我天"]),
    max_size=40,
).map("".join)


@settings(max_examples=600, deadline=None)
@given(unspaced, st.lists(st.integers(0, 60), max_size=12))
def test_a_clause_is_let_go_while_it_is_written_and_its_tokens_stay(clauses, text, marks):
    edges = [0, *sorted(min(mark, len(text)) for mark in marks), len(text)]
    tokens, ends = read(clauses, [text[a:b] for a, b in pairwise(edges)])
    assert tokens == clauses.tokens(clauses.normalise(text).lstrip())
    assert ends == read(clauses, [text])[1]


def test_a_clause_without_spaces_is_spoken_before_it_ends(clauses):
    feed = TextFeed(clauses)
    pieces = [piece for char in "天气好我天天气气好好我我か天" * 3 for piece in feed.feed(char)]
    assert len(pieces) > 2
    assert all(piece.starts_word for piece in pieces), "a piece of speech may be cut there"


@pytest.mark.parametrize("text", ["x" * 500, "我" * 500])
def test_a_word_without_end_does_not_have_to_be_waited_for(encoder, text):
    feed = TextFeed(encoder)
    pieces = feed.feed(text)
    assert sum(len(piece.tokens) for piece in pieces) > len(encoder.tokens(text)) // 2
    tokens = [token for piece in [*pieces, *feed.finish()] for token in piece.tokens]
    assert tokens == encoder.tokens(text)


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
