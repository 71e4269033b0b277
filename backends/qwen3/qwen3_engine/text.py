"""Text to tokens while the text is still arriving, without ever taking a token back.

The tokenizer first cuts text into pre-tokens (words, numbers, runs of punctuation or space) and
then each of them into tokens, so only the last pre-token can still change. It is held back until
the next one begins, together with any white space and combining marks before it that more text
could regroup.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*$")
_FULL_WIDTH = ("。", "！", "？")
_FULL_WIDTH_END = re.compile(r"[。！？][”’」』）]*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of one pre-token. ``ends_sentence``: a sentence is over after it."""

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

    def normalise(self, text: str) -> str:
        return self._normalise(text)

    def split(self, text: str) -> list[str]:
        """The pre-tokens of normalised text; joined they are the text."""
        return [text[start:stop] for _, (start, stop) in self._split(text)]

    def tokens(self, text: str) -> list[int]:
        return self._model.encode(self._normalise(text)).ids

    def tokens_of(self, pre_token: str) -> tuple[int, ...]:
        return tuple(self._model.encode(pre_token).ids)


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
        return self._release(parts[: len(parts) - held], "".join(parts[len(parts) - held :]))

    def finish(self) -> list[Piece]:
        """The rest: no more text comes."""
        return self._release(self._encoder.split(self._pending), "")

    def _release(self, parts: list[str], rest: str) -> list[Piece]:
        self._pending = rest
        self._has_begun = self._has_begun or bool(parts)
        following = [*parts, rest][1:]
        return [
            Piece(self._encoder.tokens_of(part), part[0].isspace(), _ends_sentence(part, after))
            for part, after in zip(parts, following, strict=True)
        ]


def _held_back(parts: list[str]) -> int:
    """How many pre-tokens at the end may still be regrouped by what follows."""
    held = min(1, len(parts))
    while held < len(parts):
        first, before = parts[-held], parts[-held - 1]
        is_loose = first.isspace() and before[-1:].isspace()
        if not is_loose and not unicodedata.combining(first[0]):
            break
        held += 1
    return held


def _ends_sentence(part: str, after: str) -> bool:
    # Chinese and Japanese: the tokenizer puts a full stop together with the word after it, so the
    # sentence is taken to end just before the stop.
    is_full_width = _FULL_WIDTH_END.search(part) or (
        after[:1] in _FULL_WIDTH and after[1:2].isalnum()
    )
    if is_full_width:
        return True
    return bool(_SENTENCE_END.search(part)) and (not after or after[0].isspace())
