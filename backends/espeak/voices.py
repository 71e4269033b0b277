"""Which voice a speaker id or a language tag means.

A speaker id is the voice's first language tag (``en-us``), with a variant if wanted
(``en-us+f3``). Languages are BCP 47 tags of any length: ``zh-CN`` finds ``zh``.
"""

import difflib
import re
from collections.abc import Iterable

from library import InstalledVoice

from voice_worker import BackendError, Speaker

DEFAULT = "en-us"
_GENDERS = {1: "male", 2: "female"}
# What cutting a tag from the right would get wrong.
_SPECIAL = {"zh-hk": "yue", "zh-mo": "yue", "nn": "nb", "iw": "he", "in": "id", "fil": "tl"}


class Voices:
    def __init__(self, installed: Iterable[InstalledVoice], variants: Iterable[str]) -> None:
        self._ids: dict[str, InstalledVoice] = {}
        self._languages: dict[str, tuple[int, str]] = {}
        for voice in installed:
            speaker = voice.languages[0][1].lower()
            if speaker in self._ids:
                speaker = voice.identifier.rsplit("/", 1)[-1].lower()
            self._ids[speaker] = voice
            for priority, tag in voice.languages:
                best = self._languages.get(tag.lower())
                if best is None or priority < best[0]:
                    self._languages[tag.lower()] = (priority, speaker)
        self._variants = {variant.lower(): variant for variant in variants}

    def speakers(self) -> tuple[Speaker, ...]:
        return tuple(
            Speaker(
                speaker, voice.name, bcp47(voice.languages[0][1]), _GENDERS.get(voice.gender, "")
            )
            for speaker, voice in self._ids.items()
        )

    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({bcp47(tag) for tag in (*self._languages, *_SPECIAL)}))

    def pattern(self) -> str:
        """Speaker ids that are valid without being listed: any speaker with any variant."""
        speakers = "|".join(map(re.escape, self._ids))
        variants = "|".join(map(re.escape, self._variants.values()))
        return rf"(?:{speakers})\+(?:{variants})"

    def identifier(self, speaker: str | None, language: object) -> str:
        """What the library calls the voice. A language that the speaker does not speak wins.

        Raises BackendError: unknown_voice, unsupported_language, bad_option.
        """
        base, _, variant = (speaker or DEFAULT).lower().partition("+")
        if base not in self._ids:
            if base not in self._languages:
                raise BackendError(
                    f"eSpeak NG has no speaker {speaker!r}{self._near(base, self._ids)}",
                    code="unknown_voice",
                )
            base = self._languages[base][1]
        if variant and variant not in self._variants:
            raise BackendError(
                f"eSpeak NG has no variant {variant!r}{self._near(variant, self._variants)}",
                code="unknown_voice",
            )
        if language is not None:
            base = self._of_language(base, language)
        identifier = self._ids[base].identifier
        return f"{identifier}+{self._variants[variant]}" if variant else identifier

    def _of_language(self, speaker: str, language: object) -> str:
        if not isinstance(language, str):
            raise BackendError("language must be a tag such as 'en-gb'", code="bad_option")
        tag = language.lower().replace("_", "-")
        while tag:
            found = _SPECIAL.get(tag, tag)
            if found in (known for _, known in self._ids[speaker].languages):
                return speaker
            if found in self._languages:
                return self._languages[found][1]
            tag = tag.rpartition("-")[0]
        raise BackendError(
            f"eSpeak NG does not speak {language!r}{self._near(language.lower(), self._languages)}",
            code="unsupported_language",
        )

    def _near(self, wanted: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(wanted, list(known), 5, 0.4)
        return f"; near it: {', '.join(near)}" if near else "; /voices lists what it has"


def bcp47(tag: str) -> str:
    """The tag with the usual capitals: region and script."""
    first, *rest = tag.split("-")
    parts = [first.lower()]
    for part in rest:
        after_singleton = len(parts[-1]) == 1
        if len(part) == 2 and not after_singleton:
            parts.append(part.upper())
        else:
            parts.append(part.title() if len(part) == 4 and not after_singleton else part.lower())
    return "-".join(parts)
