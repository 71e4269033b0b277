"""Recognises one piece of inline markup at a place in a text that may still be arriving.

Every function takes the text, the place, and whether the text is complete; it returns what stands
there, or None if more text has to come before that is certain. What it says never changes when
more text follows, and it looks no further than a fixed number of characters, so that nothing is
held back for long: markup that does not close within that is decided as its comment says.
"""

from __future__ import annotations

import html
import re
from html.entities import html5
from typing import NamedTuple

from voice_server.core.text.characters import is_wide

# How far behind an opening mark its closing one is looked for. The content is held back so long,
# and no longer: a mark that opens a word and is not closed by then is taken to delimit, since a
# listener is better off without the word "asterisk"; closed by the end of the line it never is.
EMPHASIS_CHARS = 24
CODE_CHARS = 48
BRACKET_CHARS = 80
TAG_CHARS = 200
MATH_CHARS = 120
# A row of the same mark is judged as one, in pieces of this length at most.
ROW_CHARS = 64


class Found(NamedTuple):
    """What stands at the place: a ``kind``, where it ends, and the ``text`` it speaks or names."""

    kind: str
    end: int
    text: str = ""


_ROWS = {mark: re.compile(rf"{re.escape(mark)}{{1,{ROW_CHARS}}}+") for mark in "*_~`"}


def emphasis(text: str, at: int, before: str, opened: int, is_final: bool) -> Found | None:
    """A row of ``*``, ``_`` or ``~``: ``open``, ``close``, or ``literal``.

    ``before`` is the character in front ("" for none), ``opened`` how many such marks are open.
    The flanking rules are CommonMark's, but for ``*`` inside words of an alphabet, which is
    multiplication (2*3*4) more often than emphasis.
    """
    mark = text[at]
    row = _ROWS[mark].match(text, at)
    assert row is not None
    end, count = row.end(), row.end() - at
    if end == len(text) and count < ROW_CHARS and not is_final:
        return None
    after = text[end : end + 1]
    if count > 3 or (mark == "~" and count != 2):
        return Found("literal", end)
    is_before_space = not before or before.isspace()
    is_after_space = not after or after.isspace()
    if opened and not is_before_space and not (mark == "_" and after.isalnum()):
        return Found("close", end)
    is_inside_word = before.isalnum() and not (mark != "_" and is_wide(before))
    # Within a word only letters**in bold**, if that closes; x**2 is a power.
    may_divide = count > 1 and mark == "*" and before.isalpha() and after.isalpha()
    if is_after_space or (is_inside_word and not may_divide) or after in ".,;:)?/":
        return Found("literal", end)
    closing = _closing(text, end, mark, count, is_final)
    if closing is None:
        return None
    is_open = closing == "seen" or (closing == "beyond" and not is_inside_word)
    return Found("open" if is_open else "literal", end)


def _closing(text: str, start: int, mark: str, count: int, is_final: bool) -> str | None:
    """Whether the mark that closes is ``seen``, ``absent``, or ``beyond`` what is looked at."""
    limit = start + EMPHASIS_CHARS
    line_end = text.find("\n", start, limit)
    stop = limit if line_end < 0 else line_end
    for row in _ROWS[mark].finditer(text, start, min(stop + 4, len(text))):
        if row.start() >= stop:
            break
        length = row.end() - row.start()
        # At the end of the text the row may grow: two marks close as well if they become three.
        is_certain = is_final or row.end() < len(text) or (length >= count > 1 and mark != "_")
        if not is_certain:
            return None
        if text[row.start() - 1].isspace() or not (length == count or length >= 3):
            continue
        if mark != "_" or not text[row.end() : row.end() + 1].isalnum():
            return "seen"
    if line_end < 0 and len(text) >= limit + 4:
        return "beyond"
    return "absent" if line_end >= 0 or is_final else None


def row_end(text: str, at: int) -> int:
    """Where the row of marks ends that begins at ``at``."""
    row = _ROWS[text[at]].match(text, at)
    assert row is not None
    return row.end()


def code(text: str, at: int, before: str, is_final: bool) -> Found | None:
    """A row of backticks: ``open`` or ``literal``; what it opens ends with a row of that length."""
    row = _ROWS["`"].match(text, at)
    assert row is not None
    end, count = row.end(), row.end() - at
    if end == len(text) and count < ROW_CHARS and not is_final:
        return None
    limit = end + CODE_CHARS
    line_end = text.find("\n", end, limit)
    stop = limit if line_end < 0 else line_end
    for closing in _ROWS["`"].finditer(text, end, min(stop + count + 1, len(text))):
        if closing.start() >= stop:
            break
        if closing.end() == len(text) and not is_final:
            return None
        if closing.end() - closing.start() == count:
            return Found("open", end)
    if line_end < 0 and len(text) < limit + count + 1 and not is_final:
        return None
    is_open = line_end < 0 and len(text) >= limit + count + 1
    return Found("open" if is_open and not before.isalnum() else "literal", end)


_INNER = rf"[^\[\]\n]{{0,{BRACKET_CHARS}}}+"
_BRACKET = re.compile(rf"\[({_INNER})\]")
_BRACKET_BEGUN = re.compile(rf"\[{_INNER}")
_CITATION_LINK = re.compile(r"\[\[[\d, ^-]{1,12}+\]\]\(")
_CITATION_LINK_BEGUN = re.compile(r"\[\[[\d, ^-]{0,12}+(?:\]\]?)?")
_CITATION = re.compile(r"[1-9]\d{0,2}(?:(\s?[,;–-]\s?)[1-9]\d{0,2})*")
_HAS_LETTER = re.compile(r"[^\W\d_]")
_DEFINITION = re.compile(r":[ \t]{0,8}+(?:<?(?:https?:|www\.|mailto:)|[/#])")
_DEFINITION_BEGUN = re.compile(r":[ \t]{0,8}+<?(?:h(?:t(?:t(?:ps?)?)?)?|w{1,3}|m[ailto]{0,5})?")


def bracket(text: str, at: int, before: str, is_line_start: bool, is_final: bool) -> Found | None:
    """``[``: ``link`` (its text follows), ``cited`` (a source's number, linked: its address
    follows), ``note`` (a source's number, a footnote), ``definition`` (of a link; the line says
    nothing), ``inner`` (a word in brackets, which may be a sound), or ``literal``."""
    if at + 1 == len(text) or (at + 2 == len(text) and text[at + 1] == "!"):
        return Found("literal", at + 1) if is_final else None
    if text.startswith("[![", at):
        return Found("link", at + 1)
    if text[at + 1] == "[":
        cited = _CITATION_LINK.match(text, at)
        if cited is not None:
            return Found("cited", cited.end() - 1)
        if not is_final and _is_begun(_CITATION_LINK_BEGUN, text, at):
            return None
        return Found("literal", at + 1)
    closed = _BRACKET.match(text, at)
    if closed is None:
        is_open = not is_final and _is_begun(_BRACKET_BEGUN, text, at)
        return None if is_open else Found("literal", at + 1)
    inner, end = closed[1], closed.end()
    if end == len(text) and not is_final:
        return None
    after = text[end : end + 1]
    if after == "(":
        return Found("link", at + 1)
    if is_line_start and after == ":":
        if inner[:1] == "^":
            return Found("note", end + 1)
        if _DEFINITION.match(text, end):
            return Found("definition", end)
        if not is_final and _is_begun(_DEFINITION_BEGUN, text, end):
            return None
    if inner[:1] == "^" and len(inner) > 1:
        return Found("note", end)
    citation = _CITATION.fullmatch(inner)
    if citation is not None and (citation[1] is None or not (not before or before.isspace())):
        # [1] is a source wherever it stands; [1, 5] with a space in front may be an interval,
        # and after a bracket it is an index: m[0][1].
        return Found("inner" if before == "]" else "note", end, inner)
    if after == "[" and _HAS_LETTER.search(inner) and not before.isalnum():
        return Found("link", at + 1)
    return Found("inner", end, inner)


_LINKED = re.compile(r"\]\(<?(?:https?:|www\.|[/#.])")
_LINKED_BEGUN = re.compile(r"\](?:\((?:<?(?:h(?:t(?:t(?:ps?)?)?)?|w{1,3})?)?)?")


def bracket_end(text: str, at: int, is_link_open: bool, is_final: bool) -> Found | None:
    """``]``: ``link`` (an address follows), ``note`` (the end of a link, with the name of its
    address), or ``literal``."""
    if is_link_open:
        if at + 1 == len(text) and not is_final:
            return None
        after = text[at + 1 : at + 2]
        if after == "[":
            name = _BRACKET.match(text, at + 1)
            if name is None and not is_final and _is_begun(_BRACKET_BEGUN, text, at + 1):
                return None
            return Found("note", at + 1 if name is None else name.end())
        return Found("link" if after == "(" else "note", at + 1)
    # The text of this link was too long to wait for its end.
    if _LINKED.match(text, at):
        return Found("link", at + 1)
    if not is_final and _is_begun(_LINKED_BEGUN, text, at):
        return None
    return Found("literal", at + 1)


_ATTRIBUTE = r"\s++[\w:.@-]++\s*+=\s*+(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'<>=]++)"
_TAG = re.compile(rf"<(/?)([A-Za-z][\w:.-]*+)(?:{_ATTRIBUTE})*+\s*+/?>")
_TAG_BEGUN = re.compile(
    rf"</?+(?:[A-Za-z][\w:.-]*+(?:{_ATTRIBUTE})*+"
    r"(?:\s*+/?+|\s++[\w:.@-]++\s*+(?:=\s*+(?:\"[^\"<]*+|'[^'<]*+)?)?)?)?"
)
_DECLARATION = re.compile(r"<[!?][A-Za-z][^<>\n]{0,100}+>|<\|[\w.▁-]{1,40}+\|>")
_DECLARATION_BEGUN = re.compile(r"<(?:!-?|[!?](?:[A-Za-z][^<>\n]{0,100}+)?|\|[\w.▁-]{0,40}+\|?)?")
_ADDRESS = re.compile(r"<(?=https?://)")

_INLINE = frozenset(
    (
        "a abbr acronym audio b bdi bdo big button cite code data del dfn em font i iframe img "
        "input ins kbd label link mark math meta object option q rp rt ruby s samp select small "
        "source span strike strong sub sup svg time tt u var video wbr path speak voice prosody "
        "phoneme emphasis say-as lang"
    ).split()
)
_BLOCK = frozenset(
    (
        "address article aside blockquote body caption center dd details dialog div dl dt "
        "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html li main nav ol p pre "
        "section summary table tbody tfoot thead title tr ul"
    ).split()
)
_CELL = frozenset({"td", "th"})
# What a model thinks, and what a browser runs, is not for a listener.
_UNSPOKEN = frozenset({"script", "style", "think", "thinking"})


def angle(text: str, at: int, before: str, is_final: bool) -> Found | None:
    """``<``: a tag as ``inline``, ``block``, ``cell``, ``line``, ``unspoken`` (drop what follows
    up to its closing tag) or ``unknown``, each with its name; ``comment`` (drop up to ``-->``),
    ``address`` (of a web page, up to ``>``), or ``literal``."""
    if at + 1 == len(text):
        return Found("literal", at + 1) if is_final else None
    if text.startswith("<!--", at):
        return Found("comment", at + 4)
    address = _ADDRESS.match(text, at)
    if address is not None:
        return Found("address", address.end())
    tag = _TAG.match(text, at, at + TAG_CHARS)
    if tag is not None:
        return _tag(tag, before)
    declaration = _DECLARATION.match(text, at)
    if declaration is not None:
        return Found("inline", declaration.end())
    if not is_final and (
        _is_begun(_TAG_BEGUN, text, at, TAG_CHARS) or _is_begun(_DECLARATION_BEGUN, text, at, 110)
    ):
        return None
    return Found("literal", at + 1)


def _tag(tag: re.Match[str], before: str) -> Found:
    name, end = tag[2].lower(), tag.end()
    if name in _UNSPOKEN:
        is_opening = not tag[1] and not tag[0].endswith("/>")
        return Found("unspoken" if is_opening else "inline", end, name)
    if name == "br":
        return Found("line", end)
    for kind, names in (("inline", _INLINE), ("block", _BLOCK), ("cell", _CELL)):
        if name in names:
            return Found(kind, end, name)
    # List<String> is a type, not a tag.
    is_type = before.isalnum() and not tag[1] and "=" not in tag[0]
    return Found("literal", tag.start() + 1) if is_type else Found("unknown", end, name)


_ENTITY = re.compile(r"&(?:#\d{1,7}+|#[xX][\da-fA-F]{1,6}+|[A-Za-z][A-Za-z\d]{1,10}+);")
_ENTITY_BEGUN = re.compile(r"&(?:#(?:\d{1,7}+|[xX][\da-fA-F]{0,6}+)?|[A-Za-z][A-Za-z\d]{0,10}+)?")


def entity(text: str, at: int, is_final: bool) -> Found | None:
    """``&``: ``entity``, with the character it stands for, or ``literal``."""
    whole = _ENTITY.match(text, at)
    if whole is not None:
        name = whole[0][1:]
        meaning = html.unescape(whole[0]) if name[0] == "#" else html5.get(name, "")
        if meaning:
            return Found("entity", whole.end(), meaning)
    elif not is_final and _is_begun(_ENTITY_BEGUN, text, at):
        return None
    return Found("literal", at + 1)


def _is_begun(pattern: re.Pattern[str], text: str, at: int, longest: int = TAG_CHARS) -> bool:
    """True if all there is from ``at`` on matches, so that what follows decides."""
    return len(text) - at <= longest and pattern.fullmatch(text, at) is not None
