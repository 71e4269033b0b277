"""The language fields of requests: one rule for every door, as ``core.wire`` has it for sockets."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from voice_server.core.wire import LANGUAGE_TAG


def _tagged(language: str) -> str:
    if not re.fullmatch(LANGUAGE_TAG, language):
        raise ValueError(f"expected a tag such as 'en' or 'pt-BR', got {language[:40]!r}")
    return language


def _tagged_if_any(language: str) -> str:
    return _tagged(language) if language else ""


LanguageTag = Annotated[
    str, AfterValidator(_tagged), Field(json_schema_extra={"pattern": LANGUAGE_TAG})
]
"""A BCP 47 tag, or the name of a language that an engine goes by."""

VoiceLanguage = Annotated[
    str,
    AfterValidator(_tagged_if_any),
    Field(max_length=64, json_schema_extra={"pattern": f"{LANGUAGE_TAG}|^$"}),
]
"""As LanguageTag, or nothing for a voice of no certain language."""
