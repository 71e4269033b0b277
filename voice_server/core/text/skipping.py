"""What is skipped once its beginning is known: code blocks, addresses, comments, thoughts.

As in ``markup``, None means that more text decides, and what is held back meanwhile is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# An address without an end is given up here, and what follows is text again.
_LONGEST_ADDRESS = 2048


@dataclass(slots=True)
class Skip:
    """What is being skipped. ``kind``: ``fence`` (a code block, up to a line of ``closing``),
    ``link`` (an address in round brackets, or none after all), ``address`` (up to a character
    that ends one, or to ``closing``), ``line``, ``until`` (up to and with ``closing``)."""

    kind: str
    closing: str = ""
    depth: int = 0
    left: int = _LONGEST_ADDRESS
    is_line_start: bool = True


def skip(state: Skip, text: str, at: int, is_final: bool) -> tuple[int, bool] | None:
    """Where to go on from ``at``, and whether the end of what is skipped was reached."""
    match state.kind:
        case "fence":
            return _fence(state, text, at, is_final)
        case "link":
            return _link(state, text, at, is_final)
        case "address":
            return _address(state, text, at, is_final)
        case "line":
            end = text.find("\n", at)
            return (len(text), False) if end < 0 else (end, True)
        case _:
            return _until(state, text, at, is_final)


_HOST = re.compile(r"(?:(https?://)|www\.)([A-Za-z0-9.-]{1,253}+)?", re.I)
_HOST_BEGUN = re.compile(r"h(?:t(?:t(?:ps?(?::/?)?)?)?)?|w(?:ww?)?", re.I)


def address_host(text: str, at: int, is_final: bool) -> tuple[int, str] | None:
    """The host of the address at ``at`` and where it ends; ``(at, "")`` if there is none.

    The host is what is worth saying of an address: ``www.example.com/a?b=1`` is "example.com".
    """
    found = _HOST.match(text, at)
    if found is None:
        is_begun = not is_final and _HOST_BEGUN.fullmatch(text, at) is not None
        return None if is_begun else (at, "")
    name = found[2] or ""
    end = found.end()
    # The character after a host decides whether its last full stop ends a sentence, and the one
    # after a colon whether that is a port.
    is_undecided = end == len(text) or (end + 1 == len(text) and text[end] == ":")
    if is_undecided and len(name) < 253 and not is_final:
        return None
    host = name.rstrip(".-")
    end -= len(name) - len(host)
    if not host or (found[1] is None and "." not in host):
        return at, ""
    return end, host.removeprefix("www.").removeprefix("WWW.")


def begins_path(text: str, at: int) -> bool:
    """True if the address goes on at ``at``, behind its host."""
    if text[at : at + 1] == ":":
        return text[at + 1 : at + 2].isdigit()
    return text[at : at + 1] in ("/", "?", "#")


_PATH = re.compile(r"[A-Za-z0-9/%=&@+$#~_-]{1,512}+")
_STOPS = re.compile(r"[.,;:!?']{1,64}+")


def _address(state: Skip, text: str, at: int, is_final: bool) -> tuple[int, bool] | None:
    char = text[at]
    path = _PATH.match(text, at)
    if state.left <= 0:
        return at, True
    if path is not None:
        end = min(path.end(), at + state.left)
        state.left -= end - at
        return end, False
    stops = _STOPS.match(text, at)
    if stops is not None:
        # Full stops, commas and so on are part of an address if it goes on behind them.
        if stops.end() == len(text) and not is_final:
            return None
        after = text[stops.end() : stops.end() + 1]
        goes_on = _PATH.match(after) is not None or after == "(" or (after == ")" and state.depth)
        state.left -= stops.end() - at
        return (stops.end(), False) if goes_on else (at, True)
    if char == "(" or (char == ")" and state.depth):
        state.depth += 1 if char == "(" else -1
        state.left -= 1
        return at + 1, False
    return (at + 1, True) if char == state.closing else (at, True)


_ADDRESS_BEGINS = re.compile(
    r"\([ \t]?<?(?:(?:https?|ftp|file|data|mailto|tel):|www\.|[/#.?])", re.I
)
_ADDRESS_WHOLE = re.compile(r"\([ \t]?<?[^\s()<>]{0,64}>?[ \t]{0,2}\)")
_ADDRESS_TITLED = re.compile(r"\([ \t]?<?[^\s()<>]{1,64}>?[ \t]{1,2}[\"'(]")
_ADDRESS_BEGUN = re.compile(r"\([ \t]?(?:<?(?:[^\s()<>]{1,64}(?:>?[ \t]{0,2})?)?)?")


def _link(state: Skip, text: str, at: int, is_final: bool) -> tuple[int, bool] | None:
    if state.depth == 0:
        whole = _ADDRESS_WHOLE.match(text, at)
        if whole is not None:
            return whole.end(), True
        if not _ADDRESS_BEGINS.match(text, at) and not _ADDRESS_TITLED.match(text, at):
            if not is_final and len(text) - at < 72 and _ADDRESS_BEGUN.fullmatch(text, at):
                return None
            return at, True  # [a word](and a remark): no link after all.
        state.depth = 1
        return at + 1, False
    for place in range(at, len(text)):
        char = text[place]
        state.left -= 1
        if char == "\n" or state.left <= 0:
            return place, True
        state.depth += (char == "(") - (char == ")")
        if state.depth == 0:
            return place + 1, True
    return len(text), False


def _until(state: Skip, text: str, at: int, is_final: bool) -> tuple[int, bool] | None:
    closing = re.compile(re.escape(state.closing), re.I).search(text, at)
    if closing is not None:
        return closing.end(), True
    if is_final:
        return len(text), False
    # The end of the text may be the beginning of what is looked for.
    rest = len(text) - len(state.closing) + 1
    return (rest, False) if rest > at else None


_FENCE_LINE = re.compile(r"[ \t>]{0,16}+(`{3,}+|~{3,}+)[ \t]*+(?=\r?\n|\Z)")
_FENCE_LINE_BEGUN = re.compile(r"[ \t>]{0,16}+(?:`*+|~*+)[ \t]*+\r?")


def _fence(state: Skip, text: str, at: int, is_final: bool) -> tuple[int, bool] | None:
    if state.is_line_start:
        closing = _FENCE_LINE.match(text, at)
        is_last = closing is not None and closing.end() == len(text)
        if not is_final and len(text) - at < 100 and _FENCE_LINE_BEGUN.fullmatch(text, at):
            return None
        is_closed = closing is not None and closing[1].startswith(state.closing)
        if closing is not None and is_closed and (is_final or not is_last):
            return closing.end(), True
    end = text.find("\n", at)
    state.is_line_start = end >= 0
    return (end + 1, False) if end >= 0 else (len(text), False)
