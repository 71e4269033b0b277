"""English without spaCy's tagger: the package's dictionaries, and a guess at each word's kind.

The tagger decides how some 800 words of the dictionary are pronounced (to *record* a *record*) and
helps with the rest little. A word's neighbour decides most of those as well.
"""

from __future__ import annotations

from collections.abc import Callable

import spacy
from misaki import en
from spacy.tokens import Doc, Token

MODEL = "en_core_web_sm"

_WORDS = {
    "DT": "a an the this that these those every each some any no another",
    "PRP": "i you he she it we they me him us them",
    "PRP$": "my your his her its our their",
    "IN": "of in on at by for with from as than into about after before because if while since",
    "CC": "and or but nor",
    "TO": "to",
    "MD": "will would can could shall should may might must 'll 'd ca wo",
    "VBZ": "is has does 's",
    "VBP": "am are have do 're 've 'm",
    "VBD": "was were had did",
    "RB": "not n't never always often also just only",
}
_TAGS = {word: tag for tag, words in _WORDS.items() for word in words.split()}
_PUNCTUATION = {".": ".", "!": ".", "?": ".", "…": ".", ",": ",", "(": "-LRB-", ")": "-RRB-"}
_PUNCTUATION |= dict.fromkeys(";:—–-", ":") | dict.fromkeys('"“', "``") | {"”": "''"}
_HAVE = frozenset("have has had 've been was were is are be being get got".split())
_BEFORE_VERBS = frozenset(
    "to will would can could shall should may might must 'll 'd do does did not n't never"
    " i you we they please let's always often".split()
)
_BEFORE_NOUNS = frozenset(
    "a an the this that these those my your his her its our their no some any each every".split()
)


class PlainG2P(en.G2P):
    """As ``misaki.en.G2P``, but for the tags. ``fallback`` reads words of no dictionary."""

    def __init__(self, british: bool, fallback: Callable[..., object]) -> None:
        # Not its own: that one downloads the tagger.
        self.version, self.british, self.unk = None, british, ""
        self.lexicon, self.fallback = en.Lexicon(british), fallback
        tokenizer = spacy.blank("en")

        def nlp(text: str) -> Doc:
            doc = tokenizer(text)
            for token in doc:
                token.tag_ = tag_of(token)
            return doc

        self.nlp = nlp


def tag_of(token: Token) -> str:
    """Of the Penn Treebank, as far as pronunciation depends on it."""
    word = token.lower_
    previous = token.nbor(-1).lower_ if token.i else ""
    if word in _TAGS:
        return _TAGS[word]
    if token.is_currency:
        return "$"
    if token.like_num:
        return "CD"
    if not any(map(str.isalnum, word)):
        return next((_PUNCTUATION[mark] for mark in word if mark in _PUNCTUATION), "NFP")
    if previous in _BEFORE_NOUNS:
        return "NN"
    if previous in _HAVE:
        return "VBN"
    if previous in _BEFORE_VERBS:
        return "VB"
    if token.text[0].isupper() and token.i and not token.nbor(-1).is_punct:
        return "NNP"
    if word.endswith("ing"):
        return "VBG"
    if word.endswith("ed"):
        return "VBD"
    return "RB" if word.endswith("ly") else "NN"
