"""Cuts a stream of cleaned text into segments worth synthesising. Pure: text in, cuts out.

             a mark, a line end, the first clause
    SCANNING ────────────────────────────────────▶ WAITING for what follows the mark
       ▲                                              │  │
       └───────── no end: scan on ────────────────────┘  └── an end ──▶ Cut, and scan on

Every decision depends on the text from the start of its segment to a place that the text itself
fixes, never on where a token ended; that is why any cutting of the same text gives the same cuts.

What is waited for, and what is not:

- An empty line ends a segment at once. So does a mark that needs no space after it (``。`` ``！``
  ``।`` ``؟``), as soon as the next character is there and closes no quotation.
- After ``.`` ``!`` ``?`` the next character that is no white space decides, if it is a capital, a
  letter without case or an opening mark, and the sentence would end before any capitalised word.
- Else (a small letter or a number follows, or an abbreviation might stand before the mark) the
  next word has to be complete.
- The time this takes costs no latency: ``guess`` names the likely segment at its mark already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from voice_server.core.text.boundaries import (
    CLAUSE,
    CLOSERS,
    STRONG,
    WEAK,
    WIDE_CLAUSE,
    SentenceEnds,
    begins_sentence,
    goes_on,
    has_open_quote,
)
from voice_server.core.text.graphemes import best_cut

# How much sound the first clause has to promise before it is worth a segment of its own: about
# 1.7 seconds, in which the rest can be synthesised. A CJK character is spoken as long as three
# Latin letters.
FIRST_CLAUSE_CHARS = 25
_WIDE_WEIGHT = 3
# Thai and Lao have no marks: a space stands between clauses and sentences alike, so one that comes
# after about four seconds ends a segment.
_SPACED_CHARS = 60

# White space this long ends a segment as an empty line does; it bounds what is waited for.
_LONGEST_GAP = 32
# A line shorter than this that ends without a mark is a heading, a verse or an address; a longer
# one is prose that somebody wrapped.
_SHORT_LINE = 45

_MARKS = re.escape(STRONG + WEAK)
_CLOSING = re.escape(CLOSERS)

_GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
_THAI = re.compile(r"[\u0e00-\u0eff]")
_END = re.compile(rf"[{_MARKS}\n]|(?<={_GREEK.pattern});|(?<={_THAI.pattern}) ")
_END_OR_CLAUSE = re.compile(rf"[{_MARKS}\n{CLAUSE}-]|(?<={_THAI.pattern}) ")
# Behind a closing quote “ opens the next speech; elsewhere it may close „this“.
_RUN = re.compile(rf"[{_MARKS};](?:(?!(?<=”)“)[{_MARKS}{_CLOSING}])*+")
_CLAUSE_RUN = re.compile(rf"[{CLAUSE}-]++[{_CLOSING}]*+")
_STRONG_MARK = re.compile(f"[{re.escape(STRONG)}]")
_MARK_SET = frozenset(STRONG + WEAK)
# What stands open at the end of a line, and goes on in the next one.
_OPEN_ENDED = frozenset(",;—–-(" + WEAK)
_GAP = re.compile(r"\s*+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
# What follows a mark, as far as it matters: punctuation, and the word after it.
_FOLLOWING = re.compile(r"[^\w\s]{0,8}+[ \t]?+(\w{0,32}+)")
_LONGEST_WORD = 32
_LIST_MARKER = re.compile(r"(?:[-*+•–—]|\d{1,3}[.)])\s")
_LIST_MARKER_CHARS = 6
_LIST_START = re.compile(r"[-*+•–—\d]")
SPEAKABLE = re.compile(r"[^\W_]|[%&@+=€$£¥₹]")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Cut:
    """A segment: ``text`` to speak, on one line, and the range of all text that it stands for.

    ``start``, ``end`` and ``text_start``, where the first character of ``text`` stands, count
    characters of everything pushed since the segmenter was made; ``text`` is as long as its source.
    The ranges of successive cuts join without a gap; what has nothing to speak in it (quotes,
    ``***``, white space) lies in the range of a neighbour.
    """

    text: str
    start: int
    end: int
    text_start: int = field(default=0, compare=False)


class Segmenter:
    """``push`` and ``flush`` return the cuts that are certain; never one longer than ``max_chars``.

    ``first_clause``: the first segment may end at a clause, so that sound starts early.
    ``language``: a BCP 47 tag; None judges by the script. What is left after the last cut of a
    flushed turn, up to ``position``, has nothing to speak and counts as heard with that cut.
    """

    def __init__(
        self, *, max_chars: int = 300, first_clause: bool = True, language: str | None = None
    ) -> None:
        if max_chars < 1:
            raise ValueError("max_chars has to be 1 or more")
        self._max_chars = max_chars
        self._ends = SentenceEnds(language)
        self._special = _END_OR_CLAUSE if first_clause else _END
        self._is_first = first_clause
        self._buffer = ""
        self._base = 0  # Where the buffer begins in all the text.
        self._start = 0  # Where the next cut begins in all the text.
        self._text_start = 0  # Where its text begins in the buffer.
        self._scan = 0  # Everything in the buffer before this has been judged.
        self._is_waiting = False
        # What a capitalised word after the marks that end here would decide.
        self._likely: tuple[int, bool] | None = None
        self._guess: Cut | None = None
        self._is_guess_known = True

    @property
    def position(self) -> int:
        """How many characters were pushed."""
        return self._base + len(self._buffer)

    @property
    def pending_chars(self) -> int:
        """How many characters, white space in front not counted, are in no cut yet."""
        return len(self._buffer) - self._text_start

    @property
    def has_pending(self) -> bool:
        """True if ``flush`` would return a cut."""
        return SPEAKABLE.search(self._buffer, self._text_start) is not None

    @property
    def guess(self) -> Cut | None:
        """The likely next segment, if the text ends at a mark that the next word may confirm, or
        if that word has begun but does not say yet.

        If what is pushed next (or a flush) proves this mark the end, the next cut has the text
        and the start of the guess; its end may lie further on, past white space. If more marks
        or quotes follow, or a word that continues the sentence, the guess was wrong.
        """
        if not self._is_waiting:
            return None
        if not self._is_guess_known:
            self._guess, self._is_guess_known = self._guess_end(), True
        return self._guess

    def push(self, text: str) -> list[Cut]:
        """More text, cut anywhere. Returns the segments that became certain."""
        if (
            not self._is_waiting
            and self._text_start < len(self._buffer) <= self._max_chars - len(text)
            and self._special.search(text) is None
        ):
            self._buffer += text
            return []
        self._buffer += text
        self._is_guess_known = False
        return self._advance(is_final=False)

    def flush(self) -> list[Cut]:
        """Everything that is left: the turn ends here, or is to be spoken up to here."""
        cuts = self._advance(is_final=True)
        end = len(self._buffer)
        if self.has_pending:
            cuts.append(self._cut(end, end))
        elif cuts:
            cuts.append(replace(cuts.pop(), end=self.position))
        if cuts:
            self._start = self.position
            self._is_first, self._special = False, _END
        self._base += end
        self._buffer = ""
        self._text_start = self._scan = 0
        self._is_waiting, self._likely = False, None
        return cuts

    def _advance(self, *, is_final: bool) -> list[Cut]:
        cuts: list[Cut] = []
        while (found := self._next_end(is_final)) is not None:
            text_end, end = found
            if self._is_speakable_before(text_end):
                cuts.append(self._cut(text_end, end))
                self._start = self._base + end
                self._is_first, self._special = False, _END
            self._text_start = self._scan = end
        if self._text_start:
            self._base += self._text_start
            self._buffer = self._buffer[self._text_start :]
            self._scan -= self._text_start
            self._text_start = 0
            self._likely = None
        return cuts

    def _cut(self, text_end: int, end: int) -> Cut:
        text = self._buffer[self._text_start : text_end].rstrip().replace("\n", " ")
        return Cut(text, self._start, self._base + end, self._base + self._text_start)

    def _next_end(self, is_final: bool) -> tuple[int, int] | None:
        """Where the next segment's text ends, and where its range does; None if more is needed."""
        self._is_waiting = False
        if self._scan == self._text_start:
            self._text_start = self._scan = _end(_GAP.match(self._buffer, self._scan))
        limit = self._text_start + self._max_chars
        while (found := self._special.search(self._buffer, self._scan, limit)) is not None:
            match self._judge(found.start(), limit, is_final):
                case None:
                    self._scan, self._is_waiting = found.start(), True
                    return None
                case int(scan):
                    self._scan = scan
                case end:
                    return end
        self._scan = min(limit, len(self._buffer))
        if len(self._buffer) <= limit:
            return None
        cut = best_cut(self._buffer, self._text_start, limit)
        return cut, cut

    def _judge(self, at: int, limit: int, is_final: bool) -> tuple[int, int] | int | None:
        """What the special character at ``at`` is: an end (of text, of range), no end (scan on
        from there), or None for not decided yet, which never happens when ``is_final``."""
        char = self._buffer[at]
        if char == "\n":
            return self._judge_line_end(at, is_final)
        if char in _MARK_SET or (char == ";" and self._is_greek(at)):
            return self._judge_marks(at, limit, is_final)
        if char == " ":
            return self._judge_space(at, is_final)
        return self._judge_clause(at, limit, is_final) if self._is_first else at + 1

    def _judge_marks(self, at: int, limit: int, is_final: bool) -> tuple[int, int] | int | None:
        buffer, size = self._buffer, len(self._buffer)
        end = _end(_RUN.match(buffer, at, limit + 1))
        if end > limit:
            return limit
        if end == size:
            return size if is_final else None
        if SPEAKABLE.search(buffer, self._text_start, at) is None:
            return end
        if self._is_strong(at, end):
            before = buffer[self._text_start : at]
            is_end = self._ends.is_strong_end(before, buffer[at:end], buffer[end])
            return (end, end) if is_end else end
        if not buffer[end].isspace():
            # "好的!他来了": no space is due between Latin marks and characters that need none.
            is_end = _WIDE.match(buffer, end) is not None and buffer[at - 1].isalpha()
            return (end, end) if is_end and buffer[at] != "…" else end
        return self._judge_what_follows(at, end, limit, is_final)

    def _judge_gap(self, at: int, is_final: bool) -> tuple[int, int] | int | None:
        """Where the white space from ``at`` ends; as an end of the segment if it is one itself."""
        gap_end = _end(_GAP.match(self._buffer, at, at + _LONGEST_GAP))
        if gap_end - at > 1:
            paragraph = _PARAGRAPH.search(self._buffer, at, gap_end)
            if paragraph is not None:
                return at, paragraph.end()
            if gap_end - at >= _LONGEST_GAP:
                return at, gap_end
        return None if gap_end == len(self._buffer) and not is_final else gap_end

    def _judge_what_follows(
        self, at: int, end: int, limit: int, is_final: bool, *, may_close: bool = True
    ) -> tuple[int, int] | int | None:
        """Decide by the white space after the marks of ``[at, end)``, and by what comes then."""
        buffer, size = self._buffer, len(self._buffer)
        gap = self._judge_gap(end, is_final)
        if not isinstance(gap, int):
            return (end, gap[1]) if gap is not None else None
        if gap == size:
            return size
        if may_close and buffer[gap] in "»›" and gap == end + 1:
            # « Bonjour ! » : a space goes in front of this closing quote. In German, where it
            # opens one (»Ja«), a letter follows.
            if gap + 1 == size:
                return size if is_final else None
            if not buffer[gap + 1].isalnum():
                end = gap + 1
                if end > limit or not buffer[end].isspace():
                    return min(end, limit)
                return self._judge_what_follows(at, end, limit, is_final, may_close=False)
        following = _FOLLOWING.match(buffer, gap)
        assert following is not None
        is_start = begins_sentence(buffer[gap]) or (is_final and not following[1])
        if is_start and self._is_likely(at, end):
            return end, gap
        if following.end() == size and len(following[1]) < _LONGEST_WORD and not is_final:
            return None
        before = buffer[self._text_start : at]
        is_end = self._ends.is_end(before, buffer[at:end], buffer[end:gap], following[0])
        return (end, gap) if is_end else end

    def _judge_line_end(self, at: int, is_final: bool) -> tuple[int, int] | int | None:
        buffer, size = self._buffer, len(self._buffer)
        gap = self._judge_gap(at, is_final)
        if not isinstance(gap, int):
            return gap
        line = buffer[self._text_start : at].rstrip()
        line = line[line.rfind("\n") + 1 :]
        if gap == size or not line or line[-1] in _OPEN_ENDED:
            return gap
        if _LIST_START.match(buffer, gap):
            if _LIST_MARKER.match(buffer, gap):
                return at, gap
            if size - gap < _LIST_MARKER_CHARS and not is_final:
                return None
        is_start = begins_sentence(buffer[gap]) or buffer[gap].isdigit() or buffer[gap] in '"“¿¡'
        return (at, gap) if is_start and len(line) < _SHORT_LINE else gap

    def _judge_clause(self, at: int, limit: int, is_final: bool) -> tuple[int, int] | int | None:
        buffer, size = self._buffer, len(self._buffer)
        if self._weight(at) < FIRST_CLAUSE_CHARS:
            return at + 1
        end = _end(_CLAUSE_RUN.match(buffer, at, limit + 1))
        if end > limit:
            return limit
        if end == size:
            return size if is_final else None
        if buffer[at] in WIDE_CLAUSE:
            return end, end
        if buffer[at] == "—":
            return end if buffer[at - 1].isdigit() and buffer[end].isdigit() else (end, end)
        if not buffer[end].isspace() or (buffer[at] in "–-" and not buffer[at - 1].isspace()):
            return end
        return end, end

    def _judge_space(self, at: int, is_final: bool) -> tuple[int, int] | int | None:
        """A space behind a Thai or Lao letter."""
        enough = FIRST_CLAUSE_CHARS if self._is_first else _SPACED_CHARS
        if self._weight(at) < enough:
            return at + 1
        if at + 1 == len(self._buffer):
            return at + 1 if is_final else None
        return (at, at + 1) if _THAI.match(self._buffer, at + 1) else at + 1

    def _guess_end(self) -> Cut | None:
        buffer, at, limit = self._buffer, self._scan, self._text_start + self._max_chars
        if buffer[at] in _MARK_SET or (buffer[at] == ";" and self._is_greek(at)):
            end = _end(_RUN.match(buffer, at, limit + 1))
            if end > limit or not self._is_speakable_before(at):
                return None
            following = buffer[end:].lstrip()
            if has_open_quote(buffer[self._text_start : end]) or goes_on(following):
                return None
            # A number is about as likely to go on behind its point as to end.
            if end == len(buffer) and buffer[at] == "." and buffer[at - 1].isdigit():
                return None
            if not self._is_strong(at, end) and not self._is_likely(at, end):
                return None
        elif buffer[at] in "\n –-" or buffer[at - 1].isdigit():
            return None
        else:
            end = len(buffer)
        return self._cut(end, _end(_GAP.match(buffer, end)))

    def _is_likely(self, at: int, end: int) -> bool:
        """Whether the marks of ``[at, end)`` are an end if a capitalised word follows."""
        if self._likely is None or self._likely[0] != end:
            before = self._buffer[self._text_start : at]
            is_end = self._ends.is_end(before, self._buffer[at:end], " ", None)
            self._likely = end, is_end
        return self._likely[1]

    def _is_strong(self, at: int, end: int) -> bool:
        if end - at == 1:
            return self._buffer[at] in STRONG
        return _STRONG_MARK.search(self._buffer, at, end) is not None

    def _is_speakable_before(self, at: int) -> bool:
        return SPEAKABLE.search(self._buffer, self._text_start, at) is not None

    def _is_greek(self, at: int) -> bool:
        return at > self._text_start and _GREEK.match(self._buffer, at - 1) is not None

    def _weight(self, at: int) -> int:
        """How long ``[text start, at)`` takes to speak, in Latin letters."""
        wide = _WIDE.findall(self._buffer, self._text_start, at)
        return at - self._text_start + (_WIDE_WEIGHT - 1) * len(wide)


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # Only for patterns that always match where they are asked.
    return match.end()
