"""Cleans what language models emit, while it arrives, into text that is worth speaking.

Markdown, HTML, links, tables, code, emoji and invisible characters go; what they say stays. The
cleaned text does not depend on how the raw text was cut, and plain prose comes out at once: only
what may be the beginning of markup is held back, for a bounded number of characters.

    line start ──▶ inline text ◀──▶ code span
        ▲             │   │
        └── new line ─┘   └──▶ skipping (a code block, an address, a comment) ──▶ back

``lines``, ``markup`` and ``mathematics`` recognise; this module holds the state, decides what is
said and which white space stands between, and remembers where every piece came from.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any

from voice_server.core.text.characters import CONTROL, LINE_BREAK, SURROGATE
from voice_server.core.text.inline import (
    ADDRESS,
    DROPPED,
    EMOJI_RUN,
    SPACES,
    WORD,
    Cast,
    InlineCleaner,
)
from voice_server.core.text.lines import line_start
from voice_server.core.text.skipping import Skip, skip
from voice_server.core.text.spoken import NONE, SPACE
from voice_server.core.text.tags import Tags

# What may follow plain text at once: words with one space between them.
_PLAIN = re.compile(rf" ?+{WORD}(?: {WORD})*+ ?")
_SPOKEN = re.compile(rf"[^{CONTROL}\x1c-\x1f{SURROGATE}]++")
# How the beginning of "https://" or "www." may end, and of an image.
_MAY_BE_HELD = tuple("hHwW!") + tuple(
    a + b
    for pair in ("ht", "tt", "tp", "ps")
    for a in (pair[0], pair[0].upper())
    for b in (pair[1], pair[1].upper())
)


class Cleaner(InlineCleaner):
    """Cleans one turn. ``tags``: the paralinguistic tags that the backend performs (``laugh``);
    all others vanish. ``ssml``: pass the text through, but for control characters.
    ``code_block``: what to say instead of a block of code. ``cast``: the voice of a name, None if
    it is nobody's; with it ``[name]`` ends a paragraph, and what follows is in that voice.
    """

    def __init__(
        self,
        *,
        tags: Collection[str] = (),
        ssml: bool = False,
        code_block: str = "",
        cast: Cast | None = None,
    ) -> None:
        super().__init__(Tags(tags), is_ssml=ssml, cast=cast)
        self._code_block = code_block
        self._raw = ""  # What is held back.
        self._is_plain = False  # The next text may take the short way.

    def push(self, text: str) -> str:
        """More raw text, cut anywhere. Returns the cleaned text that is certain by now."""
        if (
            self._is_plain
            and _PLAIN.fullmatch(text) is not None
            and "www" not in text
            and not (text.endswith(_MAY_BE_HELD) and self._is_held(text))
            and not (self._gap and text[0] == " ")
        ):
            return self._push_plain(text)
        if not text:
            return ""
        self._raw += text
        return self._advance(is_final=False)

    def flush(self) -> str:
        """The turn ends, or is to be spoken up to here. Returns what was held back."""
        cleaned = self._advance(is_final=True)
        # What stands behind the last word belongs to it now.
        self._raw_end = self._gap_at = self._consumed
        self._is_plain = False
        return cleaned

    def speaker_at(self, cleaned: int) -> Mapping[str, Any] | None:
        """Whose voice the cleaned text at the offset ``cleaned`` is in; None before any name."""
        after = bisect_right(self._speakers, cleaned, key=itemgetter(0))
        return self._speakers[after - 1][1] if after else None

    @property
    def held_chars(self) -> int:
        """How many raw characters are held back, because what they are is not certain yet."""
        return len(self._raw)

    def _push_plain(self, text: str) -> str:
        count = len(text)
        self._consumed += count
        self._previous = text[-1]
        if self._gap:
            text, count = " " + text, count + 1
            self._gap = NONE
        if self._previous == " ":
            text, count = text[:-1], count - 1
            self._gap, self._gap_at = SPACE, self._consumed - 1
        self._emitted += count
        self._raw_end = self._emitted + self._delta
        self._last = text[-1]
        return text

    def _is_held(self, text: str) -> bool:
        """Whether the end of plain ``text`` may begin an address or an image."""
        if text[-1] == "!":
            if text.lstrip(" ") == "!":
                return (text[0] == " " or bool(self._gap)) and not self._last.isalnum()
            return text[-2] == " " and not text[-3].isalnum()
        begun = ADDRESS.search(text)
        return begun is not None and (begun.start() > 0 or not self._previous.isalnum())

    def _advance(self, *, is_final: bool) -> str:
        raw, at, size = self._raw, 0, len(self._raw)
        while at < size:
            if self._is_ssml:
                end = self._step_ssml(raw, at, is_final)
            elif self._skip is not None:
                end = self._step_skip(self._skip, raw, at, is_final)
            elif self._is_line_start:
                end = self._step_line(raw, at, is_final)
            elif self._code:
                end = self._step_code(raw, at, is_final)
            else:
                end = self._step_inline(raw, at, is_final)
            if end is None:
                break
            if end > at:
                self._previous = raw[end - 1]
                at = end
        self._raw = raw[at:]
        self._consumed += at
        gap = self._consumed - self._raw_end
        self._is_plain = (
            not self._raw
            and not (self._is_ssml or self._skip or self._is_line_start or self._code)
            and not (self._is_fresh or self._was_dropped or self._is_cell_due)
            and gap == self._gap
            and gap <= SPACE
            and self._raw_end - self._emitted == self._delta
        )
        cleaned = "".join(self._out)
        self._out.clear()
        return cleaned

    def _step_ssml(self, raw: str, at: int, is_final: bool) -> int | None:
        spoken = _SPOKEN.match(raw, at)
        if spoken is not None:
            return self._say_raw(raw, at, spoken.end())
        if "\ud800" <= raw[at] <= "\udfff":
            return self._step_surrogate(raw, at, is_final)
        return at + 1

    def _step_skip(self, state: Skip, raw: str, at: int, is_final: bool) -> int | None:
        skipped = skip(state, raw, at, is_final)
        if skipped is None:
            return None
        end, is_over = skipped
        if is_over:
            self._skip = None
            self._is_line_start = state.kind in ("fence", "line")
        return self._close(at, end) if state.kind in ("link", "address") else end

    def _step_line(self, raw: str, at: int, is_final: bool) -> int | None:
        char = raw[at]
        if char in LINE_BREAK:
            self._last_block = ""
            return self._step_line_break(raw, at, is_final)
        spaces = SPACES.match(raw, at)
        if spaces is not None:
            self._indent += spaces.end() - at
            self._pause(SPACE, at)
            return spaces.end()
        if EMOJI_RUN.match(raw, at):
            # ✅ and its like in front of a line make it an item of a list.
            self._break(at)
            self._is_line_start, self._block = False, "item"
            return at
        dropped = DROPPED.match(raw, at)
        if dropped is not None:
            return dropped.end()
        found = line_start(raw, at, is_final)
        if found is None:
            return None
        match found.kind:
            case "image":
                return self._step_image(raw, at, is_final)
            case "quote":
                if self._last_block != "quote":
                    self._break(at)
                self._block = self._last_block = "quote"
                return found.end
            case "text":
                self._begin_text(at)
                return at
        self._break(at)
        self._is_line_start = False
        self._block = found.kind
        if found.kind == "fence":
            self._skip = Skip("fence", closing=found.text)
            if self._code_block:
                self._say(self._code_block, self._consumed + at, 0)
                self._break(found.end)
        elif found.kind == "rule":
            self._is_line_start = True
        return found.end
