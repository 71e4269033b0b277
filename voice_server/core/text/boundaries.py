"""Whether a sentence ends at a punctuation mark: sentencex decides, guarded against its misses.

``SentenceEnds`` judges one place at a time and keeps nothing between calls, so an answer depends
on the text alone, never on how it arrived. The tables are in ``abbreviations``.
"""

from __future__ import annotations

import re

import sentencex

from voice_server.core.text import abbreviations as data

# Marks that end a sentence whatever follows, without a space: CJK, danda, Arabic, Ethiopic,
# Burmese, Khmer, Tibetan, Armenian, the Greek question mark of its own code point.
STRONG = "。！？｡।॥؟۔։።፧။។៕།༎᠃᠉\u037e"
# Marks that may end one: a space has to follow, and what follows it has a say.
WEAK = ".!?…‼⁇⁈⁉‽"
# Marks that end a clause: with a space after them, and without.
WIDE_CLAUSE = "，；：、،؛"
CLAUSE = ",;:—–" + WIDE_CLAUSE
# What may stand between the mark and the space. Quotes that open in one language close in
# another („so“), so directly after a mark every quote counts as closing.
CLOSERS = "\"'”’»›“‘«‹)]}」』】》〉）］｝〕〗"

_LAST_WORD = re.compile(r"[^\s(\[{\"'“”„«»‹›‘’¿¡—–]*\Z")
_ENUMERATOR = re.compile(r"[\s(\[]*(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,4})")
# The first item of a list inside a line: "The plan: 1. Eat. 2. Sleep."
_FIRST_OF_LIST = re.compile(r":[ \t]+1\Z")
# A letter by itself in the midst of a sentence; behind a mark it is one of a list.
_SMALL_LETTER = re.compile(r"\w\s+[a-z]\Z")
_NUMBER = re.compile(r"(?:\d|\b[IVXLC]+)\s*\Z")
_LETTER = re.compile(r"[^\W\d_]")
_CASED = re.compile(r"[A-Za-zÀ-ÖØ-öø-ʯͰ-ϿЀ-ԯ԰-֏Ḁ-ỿἀ-῿]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WHITE_SPACE = re.compile(r"\s")
_ALPHANUMERIC = re.compile(r"[^\W_]")
_LONGEST_WORD = 40
# After a closing quote these carry the sentence on: 「はい。」と言った, “你好！”，他说, “吗？”的.
_CONTINUES_AFTER_QUOTE = frozenset("とっ的、，；：,;:")
_OPENING = frozenset("\"'“‘«„¿¡([{「『《【*")
_QUOTES = (("“", "”"), ("«", "»"), ("「", "」"), ("『", "』"), ("（", "）"))
_QUOTE = re.compile('["(„“«「『（]')
_NOTHING: frozenset[str] = frozenset()


class SentenceEnds:
    """Judges whether a mark ends a sentence, in ``language`` (a BCP 47 tag; None: by script)."""

    def __init__(self, language: str | None = None) -> None:
        self._language = language.replace("_", "-").split("-")[0].lower() if language else None
        is_latin = self._language is not None and self._language not in data.OTHER_SCRIPTS
        self._latin = self._language if self._language is not None and is_latin else "en"

    def is_strong_end(self, before: str, marks: str, following: str) -> bool:
        """True if ``marks`` (a run with a strong mark in it, and its closers) end a sentence.

        ``before`` is the segment up to the marks, ``following`` the character right after them.
        """
        if marks[-1] not in CLOSERS:
            return True
        if following in _CONTINUES_AFTER_QUOTE:
            return False
        # 《你好吗？》这本书 and 東京（日本。）です: a title or an aside inside a sentence.
        if marks[-1] in "》〉":
            return False
        return marks[-1] not in ")）" or not _LETTER.search(before[: before.rfind("（") + 1])

    def is_end(self, before: str, marks: str, gap: str, following: str | None) -> bool:
        """True if ``marks`` (a run of weak marks, and its closers) end a sentence.

        ``before`` is the segment up to the marks, ``gap`` the white space after them,
        ``following`` the next word with the punctuation in front of it. None asks whether a
        capitalised word without meaning would make it an end; what is an end then is one
        whatever the capitalised word turns out to be.
        """
        language = self._language_of(before)
        if marks == ".":
            stops = marks
        else:
            stops = marks.rstrip(CLOSERS)
            if not stops.isascii() or len(stops) > 1:
                stops = _fold(stops)
        if following is not None:
            if gap.count("\n") > 1:
                return True
            first = _ALPHANUMERIC.search(following)
            if first is not None and first[0].islower() and self._is_cased(before):
                # A writer who uses capitals does not begin a sentence without one: what follows
                # is the rest of an abbreviation's sentence, or the speech tag after a quotation.
                return False
            if stops == "…":
                # "Wait… what" goes on, "Hmm… Fine." does not, "I… I don't know" is one breath.
                return first is not None and first[0].isupper() and first[0] != "I"
        elif stops == "…":
            return False
        if stops == ".":
            verdict = self._judge_full_stop(before, language, following)
            if verdict is not None:
                return verdict
        if marks[-1] in ")]" and before.startswith(("(", "[")):
            # (A sentence of its own.) sentencex never ends one at a bracket.
            return True
        return self._ask_sentencex(language, before + marks, gap or " ", following)

    def _judge_full_stop(self, before: str, language: str, following: str | None) -> bool | None:
        """What the tables say about one full stop; None if they say nothing."""
        words = before[-_LONGEST_WORD:].rsplit(None, 1)
        if not words:
            return None
        word = words[-1]
        if not word.isalpha():
            found = _LAST_WORD.search(word)
            word = found[0] if found is not None else ""
            if not word:
                return None
        lower = word.lower()
        is_number_next = following is not None and following[0].isdigit()
        if lower in data.ANY or lower in data.NEVER_ENDS.get(language, _NOTHING):
            return False
        if lower in data.MAY_END.get(language, _NOTHING):
            return following is not None and not is_number_next
        if lower in data.MAY_END_AFTER_NUMBER.get(language, _NOTHING):
            return following is not None and _NUMBER.search(before[: -len(word)]) is not None
        if lower in data.HOURS.get(language, _NOTHING):
            return following is not None and not self._is_time_going_on(following)
        if is_number_next and lower in data.BEFORE_NUMBER.get(language, _NOTHING):
            return False
        if word == lower and lower in data.WORDS.get(language, _NOTHING):
            return not is_number_next
        if len(word) < 5:
            return self._judge_short_word(word, before, language, following)
        return self._judge_number(word, language, following) if word.isdigit() else None

    def _judge_short_word(
        self, word: str, before: str, language: str, following: str | None
    ) -> bool | None:
        is_number_next = following is not None and following[0].isdigit()
        if _ENUMERATOR.fullmatch(before, before.rfind("\n") + 1) or _FIRST_OF_LIST.search(before):
            return False
        if word.isdigit():
            return self._judge_number(word, language, following)
        if before[-6:].lower().endswith(data.ANY_PAIR):
            return False
        if before[-4:].lower() in data.MAY_END_PAIR:
            return following is not None
        if word in ("No", "no") and language == "en" and before.strip() == word:
            return not is_number_next
        if word in data.UNITS and _NUMBER.search(before[: -len(word)]):
            return following is not None and not is_number_next
        if self._language == "en" and word != "v" and _SMALL_LETTER.search(before):
            # No name has a small initial: "Solve for x. Then stop.", but "Roe v. Wade".
            return following is not None and not is_number_next
        if self._is_initial(word):
            # sentencex knows which English words begin a sentence after "Plan B." and "the U.S."
            return None if language == "en" and following is not None else False
        return None

    def _judge_number(self, word: str, language: str, following: str | None) -> bool | None:
        if language in data.ORDINAL_FULL_STOP and len(word) < 4:
            return following in data.STARTERS.get(language, _NOTHING)
        if following is None:
            # "Am 2. März": with the language unknown, the next word has to be seen.
            return False if self._language is None and len(word) < 3 else None
        if following.strip("\"'(„“").lower() in data.MONTHS:
            return False
        return None

    def _is_time_going_on(self, following: str) -> bool:
        """True for what stands behind an hour in its sentence: a day, or a time zone."""
        is_zone = following.isupper() and len(following) > 1
        return is_zone or following.lower() in data.AFTER_HOUR

    def _is_initial(self, word: str) -> bool:
        last = re.split(r"[.\-]", word)[-1]
        if len(last) != 1 or last in data.LETTER_WORDS:
            return False
        # One letter is a word in Korean or Chinese, and hardly ever one in an alphabet.
        return last.isupper() or last.islower() or "\u0590" <= last <= "\u06ff"

    def _is_cased(self, before: str) -> bool:
        letter = _CASED.search(before)
        return letter is not None and letter[0].isupper()

    def _language_of(self, before: str) -> str:
        """The language to judge by: the one named, unless the script says that it is another."""
        if before[-1:] < "\u0370" and before[-1:].isalpha():
            return self._latin
        code = next((ord(char) for char in reversed(before) if char.isalpha()), 0)
        if code >= data.SCRIPTS[0][0]:
            for low, high, default, members in data.SCRIPTS:
                if low <= code <= high:
                    return self._language if self._language in members else default
        return self._latin

    def _ask_sentencex(self, language: str, head: str, gap: str, following: str | None) -> bool:
        following = following if following is not None else "Xx"
        window = head + gap + following
        # It leaves an opening quote behind with the sentence before: 'She left. "' and 'Yes'.
        last = len(window)
        if not window.isascii():
            # A capital, white space of several bytes and a full stop make it panic.
            window = _WHITE_SPACE.sub(" ", window)
        try:
            sentences = sentencex.segment(language, window)
        except UnicodeEncodeError:
            sentences = sentencex.segment(language, _SURROGATE.sub("x", window))
        end = 0
        for sentence in sentences:
            end += len(sentence)
            if end >= len(head):
                return end < last and not _ALPHANUMERIC.search(window, len(head), end)
        return False


def _fold(stops: str) -> str:
    """A run of stops as the one it amounts to: full stops are an ellipsis, any ``!?`` is one."""
    if "!" in stops or "?" in stops or not set(stops) <= {".", "…"}:
        return "!"
    return "…"


def has_open_quote(text: str) -> bool:
    """True if a quotation or a bracket is open at the end: its closing mark would come next."""
    if not _QUOTE.search(text):
        return False
    if text.count('"') % 2 == 1 or text.count("(") > text.count(")"):
        return True
    if "„" in text:
        return text.count("„") > text.count("“") + text.count("”")
    return any(text.count(opening) > text.count(closing) for opening, closing in _QUOTES)


def goes_on(following: str) -> bool:
    """True for a small letter, whatever opens in front of it, and for marks that open nothing."""
    for char in following:
        if char.isalnum():
            return char.islower()
        if char not in _OPENING:
            return True
    return False


def begins_sentence(char: str) -> bool:
    """True for a capital, a letter of a script without capitals, and a mark that opens a
    sentence, as the bracket of a sound does: "It is! [laugh] That's fun."."""
    return (char.isalpha() and not char.islower()) or char in "¿¡["
