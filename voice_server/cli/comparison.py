"""The page of ``cli.py compare``: one HTML file that needs nothing else, sound and all."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

# Nothing is fetched and nothing runs, whatever a voice or a backend is called.
_POLICY: Final = "default-src 'none'; media-src data:; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid; white-space: pre-wrap; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .5rem .75rem; border-bottom: 1px solid #8886; text-align: left; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; }
td.error { color: #c33; }
audio { width: 16rem; vertical-align: middle; }
footer { margin-top: 2rem; opacity: .7; font-size: .875rem; }
"""
_FIGURES: Final = ("first sound, ms", "RTF", "sound, s", "ready after, s", "memory, MB")


@dataclass(frozen=True)
class Take:
    """One engine's attempt. ``wav`` is a whole file; ``error`` says why there is none.

    ``ttfa_ms``: from the text to its first sound, warm. ``rtf``: time to make ÷ length. ``load``
    and ``audio`` in seconds. ``memory_mb``: what the worker holds afterwards.
    """

    backend: str
    voice: str = ""
    wav: bytes = b""
    ttfa_ms: float = 0.0
    rtf: float = 0.0
    audio: float = 0.0
    load: float = 0.0
    memory_mb: float | None = None
    error: str = ""

    def figures(self) -> tuple[str, ...]:
        """As ``_FIGURES`` names them."""
        memory = "–" if self.memory_mb is None else f"{self.memory_mb:.0f}"
        return (
            f"{self.ttfa_ms:.1f}",
            f"{self.rtf:.3f}",
            f"{self.audio:.2f}",
            f"{self.load:.2f}",
            memory,
        )


def page(text: str, takes: Sequence[Take], machine: str) -> str:
    """The HTML. Everything that was given is escaped."""
    heads = "".join(f'<th class="figure">{figure}</th>' for figure in _FIGURES)
    rows = "\n".join(map(_row, takes))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Engines compared</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Engines compared</h1>
<blockquote>{escape(text)}</blockquote>
<table>
<thead><tr><th>engine</th><th>voice</th><th>hear it</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<footer>{escape(machine)}. One worker each, one after the other, warm. RTF: time to make ÷ length.
</footer>
</body>
</html>
"""


def _row(take: Take) -> str:
    named = f"<td>{escape(take.backend)}</td><td>{escape(take.voice) or '–'}</td>"
    if take.error:
        return f'<tr>{named}<td class="error" colspan="6">{escape(take.error)}</td></tr>'
    sound = base64.b64encode(take.wav).decode("ascii")
    figures = "".join(f'<td class="figure">{figure}</td>' for figure in take.figures())
    player = f'<audio controls preload="auto" src="data:audio/wav;base64,{sound}"></audio>'
    return f"<tr>{named}<td>{player}</td>{figures}</tr>"
