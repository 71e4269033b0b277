"""What a client may ask a backend for besides a voice: options, a language, instructions."""

from __future__ import annotations

import math
from typing import Any

from voice_server.core import wire
from voice_server.core.errors import RequestError, UnknownOption
from voice_server.core.expectations import suggest
from voice_worker.backend import BackendInfo

MOST_NAMED = 12  # of its languages, in a message for people


def job_params(asked: wire.Configure, backend: str, info: BackendInfo) -> dict[str, Any]:
    """The params of a job, checked by name.

    Raises UnknownOption, or RequestError for a language that the backend does not speak.
    """
    params = dict(asked.opts)
    for name, value in params.items():
        if name not in info.options:
            raise UnknownOption(
                f"backend {backend!r} has no option {str(name)[:80]!r}{suggest(name, info.options)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UnknownOption(f"option {name!r}: expected a finite number", code="bad_option")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise UnknownOption(f"option {name!r}: expected a 64-bit number", code="bad_option")
    if asked.language is not None:
        check_language(asked.language, backend, info)
        params["language"] = asked.language
    if asked.instructions is not None:
        if not info.instructs:
            raise UnknownOption(f"backend {backend!r} takes no instructions; leave them out")
        params["instructions"] = asked.instructions
    return params


def check_language(tag: str, backend: str, info: BackendInfo) -> None:
    """Refuse a language that the backend does not name among its own.

    Any English is English: what counts is the language, not its region or script. A name instead
    of a BCP 47 tag (``auto``, ``German``) is for the backend to understand. Raises RequestError.
    """
    wanted = _language(tag)
    if len(wanted) > 3 or not info.languages or wanted in map(_language, info.languages):
        return
    named = ", ".join(info.languages[:MOST_NAMED])
    more = f" and {len(info.languages) - MOST_NAMED} more" * (len(info.languages) > MOST_NAMED)
    raise RequestError(
        f"backend {backend!r} does not speak {tag[:40]!r}; it speaks {named}{more}: leave the "
        "language out, or choose another backend",
        code="unsupported_language",
    )


def _language(tag: str) -> str:
    """``pt-BR`` → ``pt``: the part of a tag that names the language (RFC 5646, section 2.2.1)."""
    return tag.replace("_", "-").partition("-")[0].lower()
