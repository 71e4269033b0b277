"""What Cartesia's clients send and are sent, over whatever transport."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from voice_server.audio.formats import Format, sound_format
from voice_server.core import wire
from voice_server.core.errors import UnsupportedFormat
from voice_server.web.language import LanguageTag
from voice_server.web.vendors.asking import AnyVoice, NamedVoice
from voice_server.web.vendors.operation import Body

MODELS: Final = re.compile(r"sonic[-.\w]*")
_SPEEDS: Final = {"slow": 0.8, "normal": 1.0, "fast": 1.25}


class OutputFormat(Body):
    """``container``: raw, wav or mp3."""

    container: Literal["raw", "wav", "mp3"] = "raw"
    encoding: str = Field(default="pcm_f32le", max_length=40)
    sample_rate: int = 44_100
    bit_rate: int | None = None

    def resolved(self) -> Format:
        """Raises UnsupportedFormat."""
        if self.container == "mp3":
            return sound_format("mp3", self.sample_rate, "mp3", self.bit_rate)
        self.samples()
        return sound_format(self.encoding, self.sample_rate, self.container)

    def samples(self) -> wire.AudioFormat:
        """Bare samples. Raises UnsupportedFormat."""
        if self.encoding not in wire.PCM_ENCODINGS:
            known = ", ".join(wire.PCM_ENCODINGS)
            raise UnsupportedFormat(f"output_format.encoding › expected one of {known}")
        return wire.parse_format({"encoding": self.encoding, "sample_rate": self.sample_rate})


class GenerationConfig(Body):
    """How to speak; volume and emotion mean nothing here."""

    speed: float | None = Field(default=None, ge=0.5, le=2)


class Asked(Body):
    """What every request says of its voice and its sound."""

    model_id: str = Field(default="", max_length=200)
    voice: AnyVoice = NamedVoice(id="")
    language: LanguageTag | None = None
    output_format: OutputFormat = OutputFormat()
    generation_config: GenerationConfig | None = None
    speed: Literal["slow", "normal", "fast"] | None = None
    add_timestamps: bool | None = None

    @property
    def rate(self) -> float | None:
        """How fast, where 1 is as always."""
        if self.generation_config is not None and self.generation_config.speed is not None:
            return self.generation_config.speed
        return _SPEEDS[self.speed] if self.speed else None


def word_timestamps(words: Sequence[dict[str, Any]], base: float = 0.0) -> dict[str, list[Any]]:
    """Our words as Cartesia tells them, in seconds, ``base`` later; {} where there are none."""
    told = [(word["text"].strip(), word["start_ms"], word["end_ms"]) for word in words]
    told = [entry for entry in told if entry[0]]
    if not told:
        return {}
    return {
        "words": [text for text, _, _ in told],
        "start": [round(base + start / 1000, 3) for _, start, _ in told],
        "end": [round(base + end / 1000, 3) for _, _, end in told],
    }
