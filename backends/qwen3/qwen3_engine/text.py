"""Text to tokens while the text is still arriving, without ever taking a token back.

The tokenizer first cuts text into pre-tokens (words, numbers, runs of punctuation or space) and
then each of them into tokens, so only the last pre-token can still change. It is held back until
the next one begins, together with any white space and combining marks before it that more text
could regroup.

Chinese and Japanese put no space between words: there a pre-token is a whole clause. Of such a run,
and of a word without end, those tokens are let go that are the same however it goes on. The tokens
up to a border between two tokens are the tokens of the text up to there. So of all ways to go on
one only has to look at the places where a token that reaches past the end could begin, and at what
the tokens before each of them have in common.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*$")
_FULL_WIDTH = ("。", "！", "？")
_UNSPACED = re.compile(r"[^\w\s]?[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
_LONG_WORD = 64
_FULL_WIDTH_END = re.compile(r"[。！？][”’」』）]*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of one pre-token, or of a part of one where words have no space between them.

    ``ends_sentence``: a sentence is over after it.
    """

    tokens: tuple[int, ...]
    starts_word: bool
    ends_sentence: bool


class TextEncoder:
    """The model's tokenizer without its control tokens: no text can name one."""

    def __init__(self, tokenizer: Any) -> None:
        source = tokenizer.backend_tokenizer
        self._split = source.pre_tokenizer.pre_tokenize_str
        self._normalise = source.normalizer.normalize_str if source.normalizer else str
        self._model = Tokenizer(source.model)
        self._model.pre_tokenizer = source.pre_tokenizer
        # One that takes its text as bytes, each written as a letter, which is what tokens are.
        self._pairs = Tokenizer(source.model)
        self._known = sorted(self._model.get_vocab())
        self._longest = max(map(len, self._known))

    def normalise(self, text: str) -> str:
        return self._normalise(text)

    def split(self, text: str) -> list[str]:
        """The pre-tokens of normalised text; joined they are the text."""
        return [text[start:stop] for _, (start, stop) in self._split(text)]

    def tokens(self, text: str) -> list[int]:
        return self._model.encode(self._normalise(text)).ids

    def tokens_of(self, pre_token: str) -> tuple[int, ...]:
        return tuple(self._model.encode(pre_token).ids)

    def settled(self, run: str) -> list[str]:
        """The parts of ``run``, the start of a pre-token, that have their tokens for good."""
        letters = "".join(text for text, _ in self._split(run))
        borders = [
            {stop for _, stop in self._pairs.encode(letters[:end]).offsets}
            for end in range(max(0, len(letters) - self._longest), len(letters) + 1)
            if end == len(letters) or self._begins_longer(letters[end:])
        ]
        common = set.intersection(*borders)
        parts, start, size = [], 0, 0
        for stop, char in enumerate(run, 1):
            size += len(char.encode())
            if size in common:
                parts.append(run[start:stop])
                start = stop
        return parts

    def _begins_longer(self, letters: str) -> bool:
        """Whether a token begins with ``letters`` and goes on."""
        at = bisect_left(self._known, letters + "\0")
        return at < len(self._known) and self._known[at].startswith(letters)


class TextFeed:
    """One turn's text, cut anywhere, to pieces whose tokens are final."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._pending = ""
        self._has_begun = False

    def feed(self, text: str) -> list[Piece]:
        """The pieces that no further text can change."""
        self._pending = self._encoder.normalise(self._pending + text)
        if not self._has_begun:
            # White space at the start would melt into the prompt's own line break.
            self._pending = self._pending.lstrip()
        parts = self._encoder.split(self._pending)
        held = _held_back(parts)
        rest = "".join(parts[len(parts) - held :])
        pieces = self._release(parts[: len(parts) - held], rest)
        if held == 1 and rest[-1].isalpha() and (_UNSPACED.match(rest) or len(rest) > _LONG_WORD):
            # The last character may still be composed with what follows.
            settled = self._encoder.settled(rest[:-1])
            pieces += [Piece(self._encoder.tokens_of(part), True, False) for part in settled]
            self._pending = rest[sum(map(len, settled)) :]
            self._has_begun = self._has_begun or bool(settled)
        return pieces

    def finish(self) -> list[Piece]:
        """The rest: no more text comes."""
        return self._release(self._encoder.split(self._pending), "")

    def _release(self, parts: list[str], rest: str) -> list[Piece]:
        self._pending = rest
        self._has_begun = self._has_begun or bool(parts)
        following = [*parts, rest][1:]
        return [
            Piece(self._encoder.tokens_of(part), _starts_word(part), _ends_sentence(part, after))
            for part, after in zip(parts, following, strict=True)
        ]


def _held_back(parts: list[str]) -> int:
    """How many pre-tokens at the end may still be regrouped by what follows, or by it end a
    sentence.
    """
    held = min(2 if parts[-1:] and parts[-1] in _FULL_WIDTH else 1, len(parts))
    while held < len(parts):
        first, before = parts[-held], parts[-held - 1]
        is_loose = first.isspace() and before[-1:].isspace()
        if not is_loose and not unicodedata.combining(first[0]):
            break
        held += 1
    return held


def _starts_word(part: str) -> bool:
    return part[0].isspace() or _UNSPACED.match(part) is not None


def _ends_sentence(part: str, after: str) -> bool:
    # Chinese and Japanese: the tokenizer puts a full stop together with the word after it, so the
    # sentence is taken to end just before the stop.
    is_full_width = _FULL_WIDTH_END.search(part) or (
        after[:1] in _FULL_WIDTH and after[1:2].isalnum()
    )
    if is_full_width:
        return True
    return bool(_SENTENCE_END.search(part)) and (not after or after[0].isspace())
