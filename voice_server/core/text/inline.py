"""Cleans the text inside a line: emphasis, code, links, tags, formulas, emoji, addresses.

``markup``, ``mathematics`` and ``skipping`` recognise; this layer of the cleaner decides what to
say of what they found, and keeps what is open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from voice_server.core.text import markup, mathematics
from voice_server.core.text.characters import (
    CONTROL,
    EMOJI,
    INVISIBLE,
    JOINER,
    LINE_BREAK,
    SPACE,
    SURROGATE,
    VARIATION,
    takes_joiner,
)
from voice_server.core.text.skipping import Skip, address_host, begins_path
from voice_server.core.text.spoken import LINE as GAP_LINE
from voice_server.core.text.spoken import SPACE as GAP_SPACE
from voice_server.core.text.spoken import SpokenText
from voice_server.core.text.tags import Tags

_UNSPOKEN = CONTROL + EMOJI + VARIATION + INVISIBLE + JOINER + SURROGATE
# Plain text: no character in it can be, or begin, anything but itself.
WORD = rf"[^{_UNSPOKEN}{LINE_BREAK}{SPACE}*_`~\[\]<&\\$#|:【]++"
_RUN = re.compile(rf"{WORD}(?: {WORD})*+")
_CODE_RUN = re.compile(rf"[^{_UNSPOKEN}{LINE_BREAK}{SPACE}`]++")
SPACES = re.compile(rf"[{SPACE}]++")
DROPPED = re.compile(rf"[{CONTROL}{VARIATION}{INVISIBLE}\u200d]++")
EMOJI_RUN = re.compile(rf"[{EMOJI}]++")
# An address, or what may become one when more text follows.
ADDRESS = re.compile(r"(?<![^\W_])(?:www\.|(?:https?|htt?|h|w{1,3})\Z)", re.I)
_SOURCE = re.compile(r"【\d{1,4}[^】\n]{0,40}】")
_SOURCE_BEGUN = re.compile(r"【(?:\d{1,4}[^】\n]{0,40})?")
# A word that could be somebody's name: where names are heeded, one that is no voice's is not said.
_NAME = re.compile(r"\w[\w.@-]{0,63}")
# What stands in a row is text, but for its end, which may begin something.
_ROW = re.compile(r"\[+(?=\[\[)|<+(?=<)|&+(?=&)")
_ESCAPED = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


Cast = Callable[[str], Mapping[str, Any] | None]


class InlineCleaner(SpokenText):
    """Every ``_step`` looks at one place in the raw text and returns where to go on; None if more
    text has to come before that is certain, which it never does when ``is_final``."""

    def __init__(self, tags: Tags, *, is_ssml: bool, cast: Cast | None = None) -> None:
        super().__init__()
        self._tags = tags
        self._cast = cast
        # Where in the cleaned text who begins to speak, in order.
        self._speakers: list[tuple[int, Mapping[str, Any]]] = []
        self._is_ssml = is_ssml
        self._previous = ""  # The raw character before the one to look at.
        self._block = ""  # What the line began with.
        self._last_block = ""  # What the line before began with.
        self._indent = 0
        self._is_line_start = True
        self._marks = dict.fromkeys("*_~", 0)
        self._links = 0
        self._code = 0
        self._is_autolink = False
        self._skip: Skip | None = None

    def _break(self, at: int) -> None:
        super()._break(at)
        self._marks.update(dict.fromkeys("*_~", 0))
        self._links = self._code = 0

    def _step_inline(self, raw: str, at: int, is_final: bool) -> int | None:
        run = _RUN.match(raw, at)
        if run is not None:
            return self._step_run(raw, at, run.end(), is_final)
        char = raw[at]
        match char:
            case "*" | "_" | "~":
                return self._step_emphasis(raw, at, is_final)
            case "`":
                found = markup.code(raw, at, self._previous, is_final)
                if found is not None and found.kind == "open":
                    self._code = found.end - at
                    return found.end
            case "[" | "<" | "&" if (row := _ROW.match(raw, at)) is not None:
                return self._say_raw(raw, at, row.end())
            case "[":
                return self._step_bracket(raw, at, is_final)
            case "]":
                return self._step_bracket_end(raw, at, is_final)
            case "<":
                return self._step_angle(raw, at, is_final)
            case "&":
                found = markup.entity(raw, at, is_final)
                if found is not None and found.kind == "entity":
                    return self._step_entity(found.text, at, found.end)
            case "\\":
                return self._step_backslash(raw, at, is_final)
            case "$":
                found = mathematics.dollar(raw, at, is_final)
                if found is not None and found.kind == "formula":
                    return self._say_instead(found.text, at, found.end)
            case "#":
                return self._step_hash(raw, at, is_final)
            case "|" if self._block == "row":
                self._is_cell_due = not self._is_fresh
                return at + 1
            case "【":
                return self._step_source(raw, at, is_final)
            case ":" | "|":
                return self._say_raw(raw, at, at + 1)
            case _ if char in LINE_BREAK:
                return self._step_line_break(raw, at, is_final)
            case _:
                return self._step_unspoken(raw, at, is_final)
        return None if found is None else self._say_raw(raw, at, found.end)

    def _step_run(self, raw: str, at: int, end: int, is_final: bool) -> int | None:
        """Plain text up to ``end``, unless an address or an image begins in it."""
        for begun in ADDRESS.finditer(raw, at, end):
            start = begun.start()
            if start == 0 and self._previous.isalnum():
                continue
            address = address_host(raw, start, is_final)
            if address is not None and not address[1]:
                continue
            if start > at:
                return self._say_raw(raw, at, start - (raw[start - 1] == " "))
            return None if address is None else self._say_address(raw, *address)
        if raw[end - 1] == "!":
            mark = end - 1
            is_apart = raw[mark - 1] == " " if mark > at else bool(self._gap) or self._is_fresh
            before = raw[mark - 2 : mark - 1] if mark > at else self._last
            if is_apart and (self._is_fresh or not before.isalnum()):
                # A full stop or a colon, a space, an exclamation mark: an image may follow.
                if mark > at:
                    return self._say_raw(raw, at, mark - 1)
                return self._step_image(raw, at, is_final)
        self._is_autolink = False
        return self._say_raw(raw, at, end)

    def _say_address(self, raw: str, end: int, host: str) -> int:
        self._say_raw(raw, end - len(host), end)
        if self._is_autolink:
            self._skip = Skip("address", closing=">")
        elif begins_path(raw, end):
            self._skip = Skip("address")
        self._is_autolink = False
        return end

    def _step_image(self, raw: str, at: int, is_final: bool) -> int | None:
        """An exclamation mark that a bracket may follow: dropped if it is in front of a link."""
        end = at + 1
        if end < len(raw) and raw[end] == "[":
            found = markup.bracket(raw, end, "!", False, is_final)
            if found is None:
                return None
            if found.kind == "link":
                if self._is_line_start:
                    self._begin_text(at)
                return end
        elif end == len(raw) and not is_final:
            return None
        if self._is_line_start:
            self._begin_text(at)
        return self._say_raw(raw, at, end)

    def _step_code(self, raw: str, at: int, is_final: bool) -> int | None:
        run = _CODE_RUN.match(raw, at)
        if run is not None:
            return self._say_raw(raw, at, run.end())
        if raw[at] == "`":
            end = markup.row_end(raw, at)
            if end == len(raw) and end - at < markup.ROW_CHARS and not is_final:
                return None
            if end - at == self._code:
                self._code = 0
                return self._close(at, end)
            return self._say_raw(raw, at, end)
        if raw[at] in LINE_BREAK:
            return self._step_line_break(raw, at, is_final)
        return self._step_unspoken(raw, at, is_final)

    def _step_emphasis(self, raw: str, at: int, is_final: bool) -> int | None:
        mark = raw[at]
        found = markup.emphasis(raw, at, self._previous, self._marks[mark], is_final)
        if found is None:
            return None
        count = found.end - at
        match found.kind:
            case "open":
                self._marks[mark] += count
                return found.end
            case "close":
                self._marks[mark] = max(0, self._marks[mark] - count)
                return self._close(at, found.end)
            case _:
                return self._say_raw(raw, at, found.end)

    def _step_bracket(self, raw: str, at: int, is_final: bool) -> int | None:
        # A row of sources ([1][2]) is one: what was dropped in front is no bracket to index.
        before = "" if self._was_dropped else self._previous
        found = markup.bracket(raw, at, before, self._is_line_empty, is_final)
        if found is None:
            return None
        match found.kind:
            case "link":
                self._links += 1
                return found.end
            case "cited":
                self._skip = Skip("link")
                return self._drop(found.end)
            case "note":
                return self._drop(found.end)
            case "definition":
                self._skip = Skip("line")
                return found.end
            case "inner":
                return self._step_inner(raw, at, found)
            case _:
                return self._say_raw(raw, at, found.end)

    def _step_inner(self, raw: str, at: int, found: markup.Found) -> int:
        """A word in brackets: a sound, the box of a task, or ordinary text."""
        if self._block == "item" and self._is_line_empty and found.text in (" ", "x", "X"):
            return found.end
        sound = self._tags.spelling(found.text)
        if sound is None:
            end = self._step_speaker(raw, at, found)
            return self._say_raw(raw, at, at + 1) if end is None else end
        return self._say_instead(f"[{sound}]", at, found.end) if sound else self._drop(found.end)

    def _step_speaker(self, raw: str, at: int, found: markup.Found) -> int | None:
        """``[anna]``: it is said in her voice from here on; None: ordinary text."""
        name = found.text.strip()
        is_apart = not self._previous or self._previous.isspace() or self._previous in "*_"
        if self._cast is None or not is_apart or not name:
            return None
        voice = self._cast(name)
        if voice is None:
            return self._drop(found.end) if _NAME.fullmatch(name) else None
        marks = dict(self._marks)
        self._break(at)
        self._marks = marks  # the name may be in bold
        self._speakers.append((self._emitted, voice))
        return found.end + (raw[found.end : found.end + 1] == ":")

    def _step_bracket_end(self, raw: str, at: int, is_final: bool) -> int | None:
        found = markup.bracket_end(raw, at, self._links > 0, is_final)
        if found is None:
            return None
        if found.kind == "literal":
            return self._say_raw(raw, at, found.end)
        self._links = max(0, self._links - 1)
        if found.kind == "link":
            self._skip = Skip("link")
        return self._close(at, found.end)

    def _step_angle(self, raw: str, at: int, is_final: bool) -> int | None:
        found = markup.angle(raw, at, self._previous, is_final)
        if found is None:
            return None
        match found.kind:
            case "literal":
                return self._say_raw(raw, at, found.end)
            case "address":
                self._is_autolink = True
            case "comment":
                self._skip = Skip("until", closing="-->")
            case "unspoken":
                self._skip = Skip("until", closing=f"</{found.text}>")
            case "block":
                self._break(at)
            case "line":
                self._pause(GAP_LINE, at)
            case "cell":
                self._is_cell_due = not self._is_fresh
            case "unknown":
                sound = self._tags.spelling(found.text)
                if sound:
                    return self._say_instead(f"[{sound}]", at, found.end)
                self._drop(found.end)
        return found.end

    def _step_entity(self, meaning: str, at: int, end: int) -> int:
        if SPACES.fullmatch(meaning):
            self._pause(GAP_SPACE, at)
            return end
        if EMOJI_RUN.match(meaning):
            return self._drop(end)
        is_silent = DROPPED.match(meaning) or meaning in LINE_BREAK
        return end if is_silent else self._say_instead(meaning, at, end)

    def _step_backslash(self, raw: str, at: int, is_final: bool) -> int | None:
        after = raw[at + 1 : at + 2]
        if not after and not is_final:
            return None
        if after and after in "([":
            found = mathematics.parenthesis(raw, at, is_final)
            if found is None:
                return None
            if found.kind == "formula":
                return self._say_instead(found.text, at, found.end)
        if after and after in _ESCAPED:
            return self._say_raw(raw, at + 1, at + 2)
        return at + 1 if after == "\n" else self._say_raw(raw, at, at + 1)

    def _step_hash(self, raw: str, at: int, is_final: bool) -> int | None:
        """``#``: text, but at the end of a heading."""
        if self._block != "heading" or not self._previous.isspace():
            return self._say_raw(raw, at, at + 1)
        end = len(raw) - len(raw[at:].lstrip("#"))
        if end == len(raw) and end - at < 64 and not is_final:
            return None
        is_end = raw[end : end + 1] in ("", "\n", "\r")
        return end if is_end else self._say_raw(raw, at, end)

    def _step_source(self, raw: str, at: int, is_final: bool) -> int | None:
        """【12†a file】, as some models name their sources."""
        source = _SOURCE.match(raw, at)
        if source is not None:
            return self._drop(source.end())
        if not is_final and len(raw) - at < 48 and _SOURCE_BEGUN.fullmatch(raw, at):
            return None
        return self._say_raw(raw, at, at + 1)

    def _step_unspoken(self, raw: str, at: int, is_final: bool) -> int | None:
        """White space, and characters that are dropped or kept for their neighbours."""
        spaces = SPACES.match(raw, at)
        if spaces is not None:
            self._pause(GAP_SPACE, at)
            return spaces.end()
        char = raw[at]
        if char in JOINER and takes_joiner(self._previous):
            return self._say_raw(raw, at, at + 1)
        if "\ud800" <= char <= "\udfff":
            return self._step_surrogate(raw, at, is_final)
        emoji = EMOJI_RUN.match(raw, at)
        if emoji is not None:
            return self._drop(emoji.end())
        dropped = DROPPED.match(raw, at)
        return at + 1 if dropped is None else dropped.end()

    def _step_surrogate(self, raw: str, at: int, is_final: bool) -> int | None:
        """Half a character: joined with the other half, if that comes, else dropped."""
        after = raw[at + 1 : at + 2]
        if raw[at] > "\udbff" or (after and not "\udc00" <= after <= "\udfff"):
            return at + 1
        if not after:
            return at + 1 if is_final else None
        whole = (raw[at] + after).encode("utf-16", "surrogatepass").decode("utf-16")
        if EMOJI_RUN.match(whole) and not self._is_ssml:
            return self._drop(at + 2)
        if DROPPED.match(whole) and not self._is_ssml:
            return at + 2
        return self._say_instead(whole, at, at + 2)

    def _step_line_break(self, raw: str, at: int, is_final: bool) -> int | None:
        end = at + 1
        if raw[at] == "\r":
            if end == len(raw) and not is_final:
                return None
            end += raw[end : end + 1] == "\n"
        self._last_block = "item" if self._block == "number" else self._block
        if self._is_line_start or self._block in ("heading", "row") or raw[at] == "\u2029":
            self._break(at)
        else:
            self._pause(GAP_LINE, at)
        self._is_line_start = self._is_line_empty = True
        self._indent, self._code, self._block = 0, 0, ""
        return end

    def _begin_text(self, at: int) -> None:
        goes_on = self._last_block == "item" and self._indent > 0
        if self._last_block == "item" and not goes_on:
            self._break(at)
        self._is_line_start = False
        self._block = self._last_block if goes_on or self._last_block == "quote" else ""
