"""Recognises what a line of Markdown begins with, in a text that may still be arriving.

As in ``markup``: None means that more text decides, and more text never changes an answer. So a row
of marks too long to be waited for is judged without what follows it, which may not be there yet.
"""

from __future__ import annotations

import re

from voice_server.core.text.markup import Found

_FENCE_BEGUN = re.compile(r"`{1,64}+|~{1,64}+")
_INFO = re.compile(r"[^\n]{0,200}+")
_HEADING = re.compile(r"#{1,6}+(?=[ \t\n])[ \t]?")
_HEADING_BEGUN = re.compile(r"#{1,6}+")
_RULE = re.compile(r"([-*_=+])(?:[ \t]*\1)*[ \t]*")
_RULE_CHARS = 100
_NUMBER = re.compile(r"\d{1,9}+[.)](?=[ \t\n])")
_NUMBER_BEGUN = re.compile(r"\d{1,9}+[.)]?")
_ROW_RULE = re.compile(r"[|:\- \t]+")
_ROW_CHARS = 300
_BULLETS = "-*+•‣◦▪▸●○·"
# Nothing else begins a block: these characters are all that a line's first one is asked for.
SPECIAL = frozenset("#>|`~!_=0123456789" + _BULLETS)


def line_start(text: str, at: int, is_final: bool) -> Found | None:
    """What the first character of a line that is no white space begins.

    ``heading``, ``quote``, ``item``: their mark ends at ``end``. ``number``: a numbered item; the
    number is text. ``rule``: nothing else is on the line. ``fence``: the line opens a code block,
    ``text`` is the row of marks that closes it. ``row``: of a table. ``image``: an exclamation
    mark in front of a link. ``text``: none of these.
    """
    char = text[at]
    if char not in SPECIAL:
        return Found("text", at)
    if char in "0123456789":
        return _number(text, at, is_final)
    if char == "#":
        return _heading(text, at, is_final)
    if char == "|":
        return _row(text, at, is_final)
    if char in "`~":
        return _fence(text, at, is_final)
    if char in "-*+_=":
        return _rule(text, at, is_final)
    if at + 1 == len(text) and not is_final:
        return None
    after = text[at + 1 : at + 2]
    if char == ">":
        return Found("text", at) if after in "=" or after.isdigit() else Found("quote", at + 1)
    if char == "!":
        return Found("image", at + 1) if after == "[" else Found("text", at)
    return Found("item", at + 1) if after in " \t" else Found("text", at)


def _number(text: str, at: int, is_final: bool) -> Found | None:
    if not is_final and _is_all(_NUMBER_BEGUN, text, at):
        return None
    return Found("number" if _NUMBER.match(text, at) else "text", at)


def _heading(text: str, at: int, is_final: bool) -> Found | None:
    if not is_final and _is_all(_HEADING_BEGUN, text, at):
        return None
    heading = _HEADING.match(text, at)
    return Found("text", at) if heading is None else Found("heading", heading.end())


def _row(text: str, at: int, is_final: bool) -> Found | None:
    row = _ROW_RULE.match(text, at, at + _ROW_CHARS)
    assert row is not None
    is_long = row.end() - at == _ROW_CHARS
    if row.end() == len(text) and not (is_long or is_final):
        return None
    is_rule = "-" in row[0] and (is_long or text[row.end() : row.end() + 1] in ("", "\n", "\r"))
    return Found("rule", row.end()) if is_rule else Found("row", at)


def _fence(text: str, at: int, is_final: bool) -> Found | None:
    row = _FENCE_BEGUN.match(text, at)
    assert row is not None
    if row.end() == len(text) and row.end() - at < 64 and not is_final:
        return None
    if row.end() - at < 3:
        return Found("text", at)
    info = _INFO.match(text, row.end())
    assert info is not None
    if "`" in info[0] and text[at] == "`":
        return Found("text", at)  # ```code``` on one line
    if info.end() == len(text) and len(info[0]) < 200 and not is_final:
        return None
    return Found("fence", info.end(), row[0])


def _rule(text: str, at: int, is_final: bool) -> Found | None:
    """``---``, ``* * *`` and the like; the underline of a heading; a bullet; or ``**bold**``."""
    row = _RULE.match(text, at, at + _RULE_CHARS)
    assert row is not None
    is_long = row.end() - at == _RULE_CHARS
    if row.end() == len(text) and not (is_long or is_final):
        return None
    mark, marks = row[1], len(row[0].replace(" ", "").replace("\t", ""))
    if is_long or text[row.end() : row.end() + 1] in ("", "\n", "\r"):
        if marks >= 3 or (mark in "=-" and marks == 2):
            return Found("rule", row.end())
        return Found("item", row.end()) if mark in _BULLETS and marks == 1 else Found("text", at)
    is_item = mark in _BULLETS and text[at + 1] in " \t"
    return Found("item", at + 1) if is_item else Found("text", at)


def _is_all(pattern: re.Pattern[str], text: str, at: int) -> bool:
    return len(text) - at <= 64 and pattern.fullmatch(text, at) is not None
