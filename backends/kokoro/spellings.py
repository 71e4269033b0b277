"""Where each word of a text is heard: the package's times, found again in the characters."""

from __future__ import annotations

from collections.abc import Sequence

from misaki.token import MToken

from voice_worker import Word


def words_of(
    tokens: Sequence[MToken] | None, text: str, char: int, start: float, length: float
) -> tuple[tuple[Word, ...], int]:
    """The words of one piece, and the first character that is after them.

    ``char``: where in ``text`` the piece may begin; ``start`` and ``length``: where in the sound
    it lies, in seconds. A token that is not in the text as it stands has no times.
    """
    words: list[Word] = []
    for token in tokens or ():
        at = text.find(token.text, char) if token.text else -1
        if at < 0:
            continue
        char = at + len(token.text)
        if token.start_ts is None or token.end_ts is None:
            continue
        if not any(map(str.isalnum, token.text)):
            continue
        begins = min(max(token.start_ts, 0.0), length)
        ends = min(max(token.end_ts, begins), length)
        words.append(Word(at, char, start + begins, start + ends))
    return tuple(words), char
