"""Where a text that is too long is cut, and never within a character: the rules that matter.

After Unicode Annex 29: no cut before a combining mark, a joiner, a variation selector or a skin
tone, none after a joiner, none inside a surrogate pair, a flag, a Hangul syllable of separate
jamo, or an Indic conjunct (a virama and the consonant that it joins).
"""

from __future__ import annotations

import re
import unicodedata

from voice_server.core.text.boundaries import CLAUSE, CLOSERS, WIDE_CLAUSE

_CLOSING = re.escape(CLOSERS)
_LAST_CLAUSE = re.compile(rf".*(?:[{CLAUSE}…][{_CLOSING}]*(?=\s)|[{WIDE_CLAUSE}](?=.))", re.S)
_LAST_WORD = re.compile(r".*\S(?=\s)", re.S)
# A clause nearer to the front than this makes way for a space, and a space for any character.
_CLAUSE_SHARE, _WORD_SHARE = 0.4, 0.25
ZERO_WIDTH_JOINER = "\u200d"
_VIRAMA = 9  # The canonical combining class of every virama.
_LEADING, _VOWEL, _TRAILING = range(0x1100, 0x1160), range(0x1160, 0x11A8), range(0x11A8, 0x1200)
_SYLLABLES = range(0xAC00, 0xD7A4)


def best_cut(text: str, start: int, limit: int) -> int:
    """The best place to end ``text[start:]`` at ``limit`` or before: a clause, a space, or
    between two characters. There has to be text behind ``limit``."""
    window = text[start : limit + 1]
    clause, word = _LAST_CLAUSE.match(window), _LAST_WORD.match(window)
    if clause is not None and clause.end() >= _CLAUSE_SHARE * (limit - start):
        return start + clause.end()
    if word is not None and word.end() >= _WORD_SHARE * (limit - start):
        return start + word.end()
    return safe_cut(text, start, limit)


def is_safe_cut(text: str, at: int) -> bool:
    """True if no character that a reader would call one is divided between ``at - 1`` and ``at``.

    A row of flags is only looked at for its last two letters: ``safe_cut`` counts them.
    """
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if ZERO_WIDTH_JOINER in (before, after) or unicodedata.category(after)[0] == "M":
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return False
    # The joined vowels of Thai and Lao count as letters elsewhere.
    if after in "\u200c\u0e33\u0eb3" or unicodedata.combining(before) == _VIRAMA:
        return False
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False
    first, second = ord(before), ord(after)
    if first in _LEADING:
        return not (second in _LEADING or second in _VOWEL or second in _SYLLABLES)
    if first in _VOWEL or first in _TRAILING or first in _SYLLABLES:
        return not (second in _VOWEL or second in _TRAILING)
    return True


def safe_cut(text: str, start: int, at: int) -> int:
    """The last position in ``(start, at]`` where ``text`` may be cut; ``at`` if there is none."""
    cut = at
    while cut > start:
        if is_safe_cut(text, cut) and not _divides_flag(text, start, cut):
            return cut
        cut -= 1
    return at


def _divides_flag(text: str, start: int, at: int) -> bool:
    if at >= len(text) or not _is_flag_letter(text[at]):
        return False
    letters = 0
    while at - letters > start and _is_flag_letter(text[at - letters - 1]):
        letters += 1
    return letters % 2 == 1


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
