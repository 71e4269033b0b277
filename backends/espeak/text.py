"""What eSpeak NG is given to read: the text, made safe for its fixed buffers, and where each
character of that came from.

It drops, without a word, what a clause holds beyond some 200 to 300 spoken words and what a word
holds beyond 160 bytes, and a long chain of dotted letters (``a.a.a. …``) overruns its stack. A
space in a long run of characters, or a comma in a long clause, prevents all of that. Where a
sentence begins with a hyphen behind another mark (``(-er``), it forgets where the word stands, and
some languages then read the stack backwards to find out; a space behind the hyphen prevents that.
"""

import re
import unicodedata
from bisect import bisect_left

_LONGEST_RUN = 100  # bytes without white space
_LONGEST_SPELLED_RUN = 24  # the same, of dotted letters or of digits
_HEAVIEST_CLAUSE = 200.0  # about as many letters as that may stand without punctuation
_CLAUSE_BREAK = " ,\n"  # a comma alone is no break after a symbol
_RUN = re.compile(r"\S+|\s+")
# What makes SSML spell symbols, whose names in some languages overrun what a letter's may fill.
_SPELLING = re.compile(r"<\s*(?:say-as|tts:style)", re.IGNORECASE)
_REFERENCE = re.compile(r"&#(?:x([0-9a-f]{1,8})|([0-9]{1,9}));", re.IGNORECASE)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LONG_NAMED = frozenset("‼⁉ℹ〰〽")  # and all that Unicode calls a symbol
_SSML_RUN = re.compile(r"<[^<>]*>|&[#\w]*;|[^\s<&]+|[<&]|\s+")
_STRAY_HYPHEN = re.compile(r"(?<=[\W_]-)(?=[^\W\d_])")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
# Symbols that are letters too, and spelled under names longer than a letter's may be.
_LETTER_SYMBOLS = str.maketrans("Ⓜⓜ🅰🅱🅾🅿ℹ", "MmABOPi")
# Voices that read digits of their own better than the same in ASCII.
_OWN_DIGITS = {"inc/ne": "०१२३४५६७८९", "sit/yue": "０１２３４５６７８９"}
# Vietnamese voices run into the same fault as with hyphens over the name of this.
_VIETNAMESE, _GRAVE = "aav/vi", "`"
_DOTTED = re.compile(r"\w[.'’]\w")
_DIGITS = re.compile(r"\d{20}")
_ENDS_CLAUSE = re.compile(r"(?:[^\W\d_][\"'”’)\]]*[,;!?…]|[。，、；：！？।॥؟،؛])[\"'”’)\]]*$")
_MAY_END_SENTENCE = re.compile(r"[^\W\d_]{2}\.[\"'”’)\]]*$")
_PUNCTUATION = frozenset(".,;:!?…。，、；：！？।॥؟،؛")


class Script:
    """``text`` is for eSpeak NG; ``original`` maps a position in it to one in what was given.

    ``identifier`` is the voice's, as the library calls it.
    """

    def __init__(self, given: str, identifier: str = "", *, ssml: bool = False) -> None:
        self._insertions: list[int] = []
        given = given.replace("\0", " ")
        if not given.isascii():
            given = given.translate(_LETTER_SYMBOLS)
            given = _with_ascii_digits(given, identifier.partition("+")[0])
        if identifier.startswith(_VIETNAMESE):
            given = given.replace(_GRAVE, " ")
        if ssml and _SPELLING.search(given):
            given = _REFERENCE.sub(_without_symbol, _NOT_ASCII.sub(_without_symbol, given))
        self.text = self._write(given, _SSML_RUN if ssml else _RUN)

    def original(self, position: int) -> int:
        return position - bisect_left(self._insertions, position)

    def _write(self, given: str, runs: re.Pattern[str]) -> str:
        parts: list[str] = []
        length, total, may_end = 0, 0.0, False

        def put(text: str) -> None:
            nonlocal length
            parts.append(text)
            length += len(text)

        def insert(text: str) -> None:
            self._insertions.extend(range(length, length + len(text)))
            put(text)

        for found in runs.finditer(given):
            run = found[0]
            if runs is _SSML_RUN and run[0] in "<&":
                put(run)
                continue
            if run.isspace():
                total = 0.0 if run.count("\n") > 1 else total
                put(run)
                continue
            # A full stop before a small letter ends no clause.
            total = 0.0 if may_end and not run[0].islower() else total
            parts_of_run = _STRAY_HYPHEN.split(run) if "-" in run else [run]
            for number, piece in enumerate(p for part in parts_of_run for p in _pieces(part)):
                weight = _weight(piece)
                if total and total + weight > _HEAVIEST_CLAUSE:
                    insert(_CLAUSE_BREAK)
                    total = 0.0
                elif number:
                    insert(" ")
                put(piece)
                total = 0.0 if _ENDS_CLAUSE.search(piece) else total + weight
            may_end = _MAY_END_SENTENCE.search(run) is not None
        return "".join(parts)


def _with_ascii_digits(given: str, voice: str) -> str:
    """A voice reads the digits of its own script only, and passes over all others."""
    own = _OWN_DIGITS.get(voice, "")
    return _OTHER_DIGIT.sub(
        lambda found: found[0] if found[0] in own else str(unicodedata.decimal(found[0])), given
    )


def _without_symbol(found: re.Match[str]) -> str:
    """A character or a reference to one; spaces of the same length if it is a symbol."""
    char = found[0]
    if char[0] == "&":
        code = int(found[1], 16) if found[1] else int(found[2])
        char = chr(code) if code <= 0x10FFFF else " "
    is_symbol = unicodedata.category(char)[0] == "S" or char in _LONG_NAMED
    return " " * len(found[0]) if is_symbol else found[0]


def _pieces(run: str) -> list[str]:
    """Cut a run without white space where it grows too long, after punctuation if there is any."""
    is_spelled = _DOTTED.search(run) or _DIGITS.search(run)
    limit = _LONGEST_SPELLED_RUN if is_spelled else _LONGEST_RUN
    if len(run.encode("utf-8", "replace")) <= limit:
        return [run]
    pieces, start, size = [], 0, 0
    for index, char in enumerate(run):
        width = len(char.encode("utf-8", "replace"))
        # Not before a mark that belongs to the letter in front of it.
        if size + width > limit and not unicodedata.combining(char):
            pieces.append(run[start:index])
            start, size = index, 0
        size += width
        if char in _PUNCTUATION and size > limit // 2:
            pieces.append(run[start : index + 1])
            start, size = index + 1, 0
    if start < len(run):
        pieces.append(run[start:])
    return pieces


def _weight(piece: str) -> float:
    """How much of a clause's room this takes, estimated from above: a letter is 1.

    Foreign words may be spelled; "7" is a word, "$" is "dollar", an ideograph has a name.
    """
    if piece.isascii() and piece.isalpha():
        return float(len(piece))
    weight = 0.0
    for char in piece:
        if char.isdecimal():
            weight += 2.5
        elif char.isalpha():
            weight += 2.5 if char >= "\u2e80" else 1.0
        else:
            weight += 1.0 if char in _PUNCTUATION or unicodedata.combining(char) else 6.0
    return 2.0 * weight if _DOTTED.search(piece) else weight
