"""Text to phonemes, in pieces that the model can take, for each of the nine languages."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import spacy
from english import MODEL, PlainG2P
from kokoro import KPipeline
from kokoro.pipeline import LANG_CODES
from misaki import en, espeak
from misaki.token import MToken

from voice_worker import BackendError

log = logging.getLogger(__name__)

# Phonemes that the model takes at once.
MOST = 510
# Characters. What is longer is no word and no number.
LONGEST_WORD, LONGEST_NUMBER = 60, 12
_BREAKS = ("\n", ".!?…。！？", ":;：；", ",，、", " ")


@dataclass(frozen=True)
class Piece:
    """What the model speaks at once. ``tokens``: where the language has them, one a word."""

    phonemes: str
    tokens: list[MToken] | None = None


Reader = Callable[[str], Iterator[Piece]]


def reader_of(code: str) -> Reader:
    """``code`` as in voices.LANGUAGES. Takes up to some seconds; keep what it gives."""
    read = _english(british=code == "b") if code in "ab" else _other(code)

    def reader(text: str) -> Iterator[Piece]:
        if any(map(str.isalnum, text)):
            yield from (piece for piece in read(text) if piece.phonemes.strip())

    return reader


def _english(*, british: bool) -> Reader:
    g2p = _english_g2p(british)

    def read(text: str) -> Iterator[Piece]:
        for line in re.split(r"\n+", _with_breaks(text)):
            if not line.strip():
                continue
            _, tokens = g2p(line)
            # A method that uses nothing of its object, whose making downloads things.
            for _, phonemes, part in KPipeline.en_tokenize(None, tokens):
                if len(phonemes) <= MOST:
                    yield Piece(phonemes, part)
                else:
                    yield from (
                        Piece(phonemes[at : at + MOST]) for at in range(0, len(phonemes), MOST)
                    )

    return read


def _english_g2p(british: bool) -> en.G2P:
    """With spaCy's tagger where it is installed; else homographs are guessed.

    The package would download the tagger, and end the process where it cannot.
    """
    fallback = espeak.EspeakFallback(british=british)
    reason = "is not installed"
    if spacy.util.is_package(MODEL):
        try:
            return en.G2P(british=british, fallback=fallback, unk="")
        except (SystemExit, OSError, ValueError, ImportError) as exc:
            reason = f"cannot be used ({exc!s:.200})"
    log.warning(
        "spaCy's %s %s: words such as 'read' and 'record' are pronounced by guess; the README of"
        " this backend says how to install it",
        *(MODEL, reason),
    )
    return PlainG2P(british=british, fallback=fallback)


def _other(code: str) -> Reader:
    g2p = _g2p(code)
    # Chinese and Japanese are written without spaces; what is foreign in them is not.
    letter = "[!-~]" if code in "jz" else r"\S"
    # From 10^10 on its Japanese numbers end in an AssertionError.
    digits = 8 if code == "j" else LONGEST_NUMBER

    # Of a few phonemes a character each, and slow to read at length.
    most = 120 if code in "jz" else 400

    def read(text: str) -> Iterator[Piece]:
        phonemes = ""
        if len(text) <= most:
            phonemes = g2p(_with_breaks(text, letter, digits))[0]
        if len(text) > most or (len(phonemes) > MOST and len(text) > 1):
            middle = _middle(text)
            yield from read(text[:middle])
            yield from read(text[middle:])
        else:
            yield Piece(phonemes[:MOST])

    return read


def _g2p(code: str) -> Callable[[str], tuple[str, object]]:
    try:
        if code == "j":
            from misaki import ja

            return ja.JAG2P()
        if code == "z":
            import jieba
            from misaki import zh

            # It keeps its dictionary in a file that it believes: not where everybody writes.
            jieba.dt.tmp_dir = sys.prefix
            return zh.ZHG2P(version=None)
        return espeak.EspeakG2P(language=LANG_CODES[code])
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendError(
            f"what reads this language cannot be loaded ({exc!s:.200}): run `cli.py backends"
            " install kokoro`",
            code="unsupported_language",
        ) from exc


def _middle(text: str) -> int:
    """Where to cut in two: at the strongest break in the middle half, else in the middle."""
    middle = len(text) // 2
    for marks in _BREAKS:
        places = [
            at + 1
            for at in range(len(text) // 4, len(text) * 3 // 4)
            if text[at] in marks and (marks != _BREAKS[1] or not text[at + 1 : at + 2].isalnum())
        ]
        if places:
            return min(places, key=lambda place: abs(place - middle))
    return middle


def _with_breaks(text: str, letter: str = r"\S", digits: int = LONGEST_NUMBER) -> str:
    """Words and numbers without an end, cut: some readers take minutes for them, or give up."""
    text = re.sub(rf"(\d{{{digits}}})(?=\d)", r"\1 ", text)
    return re.sub(rf"({letter}{{{LONGEST_WORD}}})(?={letter})", r"\1 ", text)
