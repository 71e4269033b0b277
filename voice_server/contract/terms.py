"""What a run of the contract is given, and the two ways in which a check does not pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Breach(Exception):
    """The backend does not keep the contract. The message says what is wrong, ``remedy`` what
    its author does about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class NotApplicable(Exception):
    """The backend does not claim to be able to do what this check is about."""


@dataclass(frozen=True)
class Plan:
    """How a backend is checked.

    ``segments``: how many are spoken to see whether memory grows. ``cancels``: at how many points
    of a text it is cancelled. ``chars``: length of the long text, less if the backend says so.
    ``voice``: a speaker, instead of the default one. ``params``: options that every job gets.
    ``recording``: what is cloned, mono 24 kHz WAV, with its ``transcript``; without one, a sound
    like speech is made.
    """

    segments: int = 200
    cancels: int = 24
    chars: int = 1_500
    voice: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    recording: Path | None = None
    transcript: str | None = None
