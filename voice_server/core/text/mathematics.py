"""Formulas in text: where ``$x^2$`` or ``\\(x^2\\)`` ends, and how to put it into plain signs."""

from __future__ import annotations

import re

from voice_server.core.text.markup import Found

# A formula in a line is no longer than this; one set off from the text may be.
INLINE_CHARS = 80
DISPLAY_CHARS = 300

_SIGNS = {
    "times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "leq": "≤", "le": "≤",
    "geq": "≥", "ge": "≥", "neq": "≠", "ne": "≠", "approx": "≈", "equiv": "≡", "infty": "∞",
    "sum": "∑", "prod": "∏", "int": "∫", "partial": "∂", "nabla": "∇", "sqrt": "√", "to": "→",
    "rightarrow": "→", "leftarrow": "←", "Rightarrow": "⇒", "in": "∈", "notin": "∉",
    "subset": "⊂", "cup": "∪", "cap": "∩", "forall": "∀", "exists": "∃", "angle": "∠",
    "degree": "°", "circ": "°", "ldots": "…", "dots": "…", "cdots": "…", "quad": " ",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ",
    "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ",
    "omega": "ω", "Delta": "Δ", "Sigma": "Σ", "Omega": "Ω",
    "left": "", "right": "", "text": "", "mathrm": "", "mathbf": "", "mathbb": "", "begin": "",
    "end": "", "displaystyle": "", "operatorname": "", "boxed": "",
}  # fmt: skip
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SUPERSCRIPT = re.compile(r"\^\{?([23])\}?(?!\d)")
_FORMULA_START = re.compile(r"\$(?:[A-Za-z]{1,2}(?![A-Za-z])|[\\({|-])")


def dollar(text: str, at: int, is_final: bool) -> Found | None:
    """``$``: ``formula``, with what it says, or ``literal`` (money, a variable of a shell)."""
    if len(text) - at < 4 and not is_final:
        # Too little to tell, unless it is money already, as it is most often.
        return None if text[at + 1 : at + 2] in _MAY_BEGIN else Found("literal", at + 1)
    if text.startswith("$$", at):
        if text[at + 2 : at + 3] in ("", " ", "\t", "$"):
            return Found("literal", at + 2)
        end = text.find("$$", at + 2, at + DISPLAY_CHARS)
        if end >= 0:
            return Found("formula", end + 2, reading(text[at + 2 : end]))
        is_open = len(text) - at < DISPLAY_CHARS and not is_final
        return None if is_open else Found("literal", at + 2)
    if _FORMULA_START.match(text, at) is None:
        return Found("literal", at + 1)
    limit = at + INLINE_CHARS
    end, line_end = text.find("$", at + 1, limit), text.find("\n", at, limit)
    if end < 0 or 0 <= line_end < end:
        is_open = line_end < 0 and len(text) < limit and not is_final
        return None if is_open else Found("literal", at + 1)
    if end + 1 == len(text) and not is_final:
        return None
    if text[end - 1].isspace() or text[end + 1 : end + 2].isdigit():
        return Found("literal", at + 1)
    return Found("formula", end + 1, reading(text[at + 1 : end]))


_MAY_BEGIN = frozenset("\\({|-$") | frozenset(map(chr, [*range(65, 91), *range(97, 123)])) | {""}


def parenthesis(text: str, at: int, is_final: bool) -> Found | None:
    r"""``\(`` or ``\[``: ``formula``, with what it says, or ``literal`` (an escaped bracket)."""
    closing, longest = ("\\)", INLINE_CHARS) if text[at + 1] == "(" else ("\\]", DISPLAY_CHARS)
    end = text.find(closing, at + 2, at + longest)
    if end >= 0:
        return Found("formula", end + 2, reading(text[at + 2 : end]))
    if len(text) - at < longest and not is_final:
        return None
    return Found("literal", at + 2)


def reading(formula: str) -> str:
    """The formula in plain signs: commands as the signs they draw, or by their names."""
    formula = _FRACTION.sub(r"\1/\2", formula)
    formula = _COMMAND.sub(lambda command: _SIGNS.get(command[1], command[1]), formula)
    formula = _SUPERSCRIPT.sub(lambda power: "²" if power[1] == "2" else "³", formula)
    formula = re.sub(r"\\[,;:! \\]|[{}&]", " ", formula).replace("_", " ").replace("\\", "")
    return " ".join(formula.split())
