"""The texts that a backend is given: plain ones to compare, and those that break software."""

from __future__ import annotations

from typing import Final

SENTENCE: Final = "The quick brown fox jumps over the lazy dog, and nobody minds."
OTHER: Final = "Something else is said in between."
PASSAGE: Final = (
    "Once there was a lighthouse on a rock in the sea. Every evening its keeper climbed the stairs,"
    " lit the lamp and looked out. Ships passed, and he knew them by their lights."
)
SHORT: Final = ("Yes.", "One moment, please.", "It costs three pounds and ten.", "Good morning!")

# Nothing that can be said, in the ways in which that arrives.
EMPTY: Final[dict[str, str]] = {
    "no text": "",
    "spaces": "   ",
    "a line end": "\n",
    "dots": "...",
    "a dash": "—",
    "an emoji": "🙂",
    "a zero-width space": "\u200b",
}

UNICODE: Final[dict[str, str]] = {
    "accents": "Été, naïve, Ångström, señor, 你好 und Straße.",
    "Chinese": "今天天气很好。",
    "Japanese": "こんにちは、世界。",
    "Korean": "안녕하세요.",
    "Arabic": "مرحبا بالعالم",
    "Hebrew": "שלום עולם",
    "Hindi": "नमस्ते दुनिया",
    "combining marks": "Z̷̢͝a̴l̵g̶o̸ came.",
    "emoji": "Well done 👩‍👩‍👧‍👦 🇬🇧 👍🏽 indeed.",
    "right-to-left override": "abc \u202edef\u202c ghi",
    "control characters": "one\x00two\x07three\x1bfour\x7f",
    "a lone surrogate": "half \ud83d a pair",
    "beyond the basic plane": "𝕱𝖗𝖆𝖐𝖙𝖚𝖗 and 𠜎.",
    "quotes and dashes": "“He said ‘no’ — twice…”",
    "markup": "<speak>Tom & <b>Jerry</b></speak> &amp; $HOME `ls`",
    "a tag nobody knows": "[nosuchtag] Hello there.",
    "digits": "1234567890 3.14159 1e-9 0x7f",
}


def long_text(chars: int) -> str:
    """Sentences of ``chars`` characters in all."""
    text = (PASSAGE + " ") * (chars // len(PASSAGE) + 1)
    return text[:chars]


def one_word(chars: int) -> str:
    """A word without end, as an address or base64 is to an engine."""
    return ("abcdefghijklmnopqrstuvwxyz" * (chars // 26 + 1))[:chars]
