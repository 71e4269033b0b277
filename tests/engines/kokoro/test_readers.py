"""Text to phonemes in nine languages, without a network and without losing any of it."""

from __future__ import annotations

import logging

import pytest
import readers
from checkpoint import SYMBOLS
from readers import MOST, reader_of
from voices import LANGUAGES

TEXTS = {
    "a": "Hello there, it costs $5.50.",
    "b": "Hello there, it costs £5.50.",
    "e": "Hola, esto es una prueba.",
    "f": "Bonjour, ceci est un essai.",
    "h": "नमस्ते दुनिया",
    "i": "Ciao, questa è una prova.",
    "j": "こんにちは、世界。",
    "p": "Olá, isto é um teste.",
    "z": "今天天气很好。",
}


@pytest.fixture(scope="module")
def read():
    made = {}

    def read(code, text):
        if code not in made:
            made[code] = reader_of(code)
        return list(made[code](text))

    return read


def phonemes(pieces):
    return "".join(piece.phonemes for piece in pieces)


def test_every_language_has_a_text_here():
    assert set(TEXTS) == set(LANGUAGES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_is_read_with_phonemes_that_the_model_knows(read, code):
    (piece,) = read(code, TEXTS[code])
    known = sum(symbol in SYMBOLS for symbol in piece.phonemes)
    assert known / len(piece.phonemes) > 0.9
    assert known > len(TEXTS[code]) // 2


def test_english_without_a_tagger_is_as_the_package_documents_it(read):
    """The example of misaki's own README, which was made with the tagger."""
    text = "[Misaki](/misˈɑki/) is a G2P engine designed for [Kokoro](/kˈOkəɹO/) models."
    assert phonemes(read("a", text)) == "misˈɑki ɪz ɐ ʤˈitəpˈi ˈɛnʤən dəzˈInd fɔɹ kˈOkəɹO mˈɑdᵊlz."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I want to record it.", "ɹəkˈɔɹd"),
        ("The record is old.", "ɹˈɛkəɹd"),
        ("We will present it.", "pɹizˈɛnt"),
        ("This is a present.", "pɹˈɛzᵊnt"),
        ("They object.", "əbʤˈɛkt"),
        ("An object fell.", "ˈɑbʤəkt"),
        ("He has read it.", "ɹˈɛd"),
        ("I read a lot.", "ɹˈid"),
    ],
)
def test_homographs_are_told_apart_by_their_neighbours(read, text, expected):
    assert expected in phonemes(read("a", text))


def test_a_word_of_no_dictionary_is_read_by_espeak(read):
    assert len(phonemes(read("a", "Zyxwvian blorft."))) > 8


def test_british_is_not_american(read):
    assert phonemes(read("a", "dance")) != phonemes(read("b", "dance"))


def test_a_missing_tagger_is_told_once_and_costs_no_speech(monkeypatch, caplog):
    monkeypatch.setattr(readers.spacy.util, "is_package", lambda _: False)
    with caplog.at_level(logging.WARNING):
        (piece,) = list(reader_of("a")("Hello."))
    assert piece.phonemes == "həlˈO."
    (told,) = [record.getMessage() for record in caplog.records]
    assert "en_core_web_sm is not installed" in told


@pytest.mark.parametrize("error", [SystemExit(1), OSError("damaged"), ValueError("too old")])
def test_a_tagger_that_ends_the_process_costs_no_speech(monkeypatch, caplog, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(readers.spacy.util, "is_package", lambda _: True)
    monkeypatch.setattr(readers.en.spacy, "load", load)
    with caplog.at_level(logging.WARNING):
        (piece,) = list(reader_of("a")("Hello."))
    assert piece.phonemes == "həlˈO."
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("code", ["a", "e", "j", "z"])
def test_long_text_comes_in_pieces_and_none_of_it_is_lost(read, code):
    sentence = TEXTS[code].rstrip(".。") + " "
    pieces = read(code, sentence * 40)
    assert len(pieces) > 1
    assert max(len(piece.phonemes) for piece in pieces) <= MOST
    one = len(phonemes(read(code, sentence)).strip())
    assert len(phonemes(pieces)) >= 0.9 * 40 * one


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("text", ["x" * 900, "9" * 200, "漢" * 300, "а" * 300])
def test_a_word_without_an_end_is_cut(read, code, text):
    for piece in read(code, text):
        assert 0 < len(piece.phonemes) <= MOST


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("text", ["", " \n ", "...", "—", "🙂", "\u200b"])
def test_a_text_without_a_letter_has_no_phonemes(read, code, text):
    assert read(code, text) == []
