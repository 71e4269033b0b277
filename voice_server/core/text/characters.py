"""Classes of characters that nobody speaks: emoji, controls, invisible ones; and white space.

The ranges stand here, rather than in the ``emoji`` package, because its table costs 77 ms to
import; a test holds them against that table.
"""

from __future__ import annotations

# Every emoji and what belongs to one (skin tones, flags, tags, variation selectors, keycaps),
# but not the signs that are text first: © ® ™ ‼ ⁉ ♭ ♮ ♯ ㊗ ㊙, digits in circles, plain arrows.
EMOJI = (
    "\u20e3\u2139\u21a9\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u24c2"
    "\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u266c\u2670-\u2775\u2794-\u27bf\u2934\u2935"
    "\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d"
    "\U0001f000-\U0001f0ff\U0001f170-\U0001f1ff\U0001f201-\U0001faff"
)
VARIATION = "\ufe00-\ufe0f\U000e0000-\U000e01ef"
# Zero-width space, direction marks, word joiner and invisible operators, byte order mark, soft
# hyphen, fillers, interlinear marks, private use (where some models put their citations).
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ue000-\uf8ff\U000f0000-\U0010ffff"
)
CONTROL = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
JOINER = "\u200c\u200d"
SURROGATE = "\ud800-\udfff"
LINE_BREAK = "\n\r\x0b\x0c\x85\u2028\u2029"
# White space that is not a line break; the separators \x1c to \x1f count as such in Python.
SPACE = "\t\x1c-\x1f \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

# After a letter of these scripts a joiner shapes the word: Arabic and Persian, the Indic scripts,
# Burmese, Khmer, Mongolian. After anything else it is left over from an emoji.
_JOINING = (
    *((0x0600, 0x08FF), (0x0900, 0x0DFF), (0x1000, 0x109F)),
    *((0x1780, 0x18AF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
)


def takes_joiner(char: str) -> bool:
    """True if a zero-width joiner or non-joiner after ``char`` is part of a word."""
    return any(low <= ord(char) <= high for low, high in _JOINING) if char else False


def is_wide(char: str) -> bool:
    """True for scripts written without spaces, where a word's neighbour is a letter too."""
    return char >= "\u2e80"
