"""The official voices, mixtures of them, and the language that each speaks."""

from __future__ import annotations

import difflib
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from model import REPO

from voice_worker import BackendError, Speaker
from voice_worker.hub import locate

DEFAULT = "af_heart"
# The first letter of a voice's name is the code of its language, the second its gender.
LANGUAGES = {
    "a": "en-US",
    "b": "en-GB",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-BR",
    "z": "zh",
}
NAMES = tuple(
    f"{group}_{name}"
    for group, names in {
        "af": "heart alloy aoede bella jessica kore nicole nova river sarah sky",
        "am": "adam echo eric fenrir liam michael onyx puck santa",
        "bf": "alice emma isabella lily",
        "bm": "daniel fable george lewis",
        "ef": "dora",
        "em": "alex santa",
        "ff": "siwis",
        "hf": "alpha beta",
        "hm": "omega psi",
        "if": "sara",
        "im": "nicola",
        "jf": "alpha gongitsune nezumi tebukuro",
        "jm": "kumo",
        "pf": "dora",
        "pm": "alex santa",
        "zf": "xiaobei xiaoni xiaoxiao xiaoyi",
        "zm": "yunjian yunxi yunxia yunyang",
    }.items()
    for name in names.split()
)
_PART = re.compile(r"([a-z_]+)(?:\*(\d{1,3}(?:\.\d{1,6})?))?")
MOST_PARTS = 8


@dataclass(frozen=True)
class Part:
    """One voice of a mixture. The weights of a mixture add up to 1."""

    name: str
    weight: float


class Voices:
    """The voices in ``folder``, or at the hub. Only names of the official set are looked for."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._packs: dict[str, torch.Tensor] = {}
        self.names = NAMES
        if folder is not None:
            self.names = tuple(n for n in NAMES if (folder / "voices" / f"{n}.pt").is_file())
            if not self.names:
                self._load(DEFAULT)  # says what is missing

    def speakers(self) -> tuple[Speaker, ...]:
        return tuple(
            Speaker(
                id=name,
                name=name.partition("_")[2].title(),
                language=LANGUAGES[name[0]],
                gender={"f": "female", "m": "male"}[name[1]],
            )
            for name in self.names
        )

    def pattern(self) -> str:
        """Mixtures, and names without their prefix: ``af_heart*0.6+bella*0.4``."""
        names = {*self.names, *(name.partition("_")[2] for name in self.names)}
        part = rf"(?:{'|'.join(sorted(names))})(?:\*\d{{1,3}}(?:\.\d{{1,6}})?)?"
        return rf"{part}(?:\+{part}){{0,{MOST_PARTS - 1}}}"

    def mixture(self, text: str) -> tuple[Part, ...]:
        """``name*weight+name*weight…``; a weight that is left out is 1.

        Raises BackendError: unknown_voice, bad_option.
        """
        parts: list[Part] = []
        for each in text.lower().split("+"):
            if (found := _PART.fullmatch(each.strip())) is None:
                raise BackendError(
                    f"{text!r:.80} is no voice and no mixture such as af_heart*0.6+bella*0.4",
                    code="unknown_voice",
                )
            name = self._name(found[1], parts[0].name if parts else DEFAULT)
            parts.append(Part(name, float(found[2] or 1)))
        total = math.fsum(part.weight for part in parts)
        if len(parts) > MOST_PARTS or not total:
            raise BackendError(
                f"a mixture has at most {MOST_PARTS} voices and a weight above 0", code="bad_option"
            )
        return tuple(Part(part.name, part.weight / total) for part in parts)

    def pack(self, mixture: Sequence[Part]) -> torch.Tensor:
        """[phonemes, 1, 256]: the style for each length of text. Raises as ``locate`` does."""
        packs = [part.weight * self._load(part.name) for part in mixture]
        return torch.stack(packs).sum(0)

    def _name(self, given: str, first: str) -> str:
        """The full name; one without its prefix is sought in the language of ``first``."""
        if given in self.names:
            return given
        same = [name for name in self.names if name.partition("_")[2] == given]
        near = [name for name in same if name[0] == first[0]] or same
        if len(near) == 1:
            return near[0]
        close = near or difflib.get_close_matches(given, self.names, 5, 0.4) or self.names[:5]
        verb = "is more than one voice" if near else "is no voice"
        raise BackendError(
            f"{given!r:.60} {verb} of kokoro: {', '.join(close)}", code="unknown_voice"
        )

    def _load(self, name: str) -> torch.Tensor:
        if name not in self._packs:
            path = locate(REPO, f"voices/{name}.pt", folder=self._folder)
            try:
                pack = torch.load(path, map_location="cpu", weights_only=True)
                if pack.shape[1:] != (1, 256) or len(pack) < 510:
                    raise ValueError(f"it is of the shape {tuple(pack.shape)}")
            except (
                *(OSError, EOFError, ValueError, RuntimeError, AttributeError),
                pickle.UnpicklingError,
            ) as exc:
                raise BackendError(
                    f"{path} is no voice of Kokoro ({exc!s:.200}): fetch it again",
                    code="model_incomplete",
                ) from exc
            self._packs[name] = pack.float()
        return self._packs[name]


def code_of(language: object, voice: str) -> str:
    """The code of the language to read in: what is asked for, else what the voice speaks.

    ``en`` leaves a British voice British. Raises BackendError unsupported_language.
    """
    if language is None:
        return voice[0]
    tag = str(language).replace("_", "-").lower()
    base = tag.partition("-")[0]
    exact = {known.lower(): code for code, known in LANGUAGES.items()}
    if tag in exact:
        return exact[tag]
    near = [code for code, known in LANGUAGES.items() if known.partition("-")[0] == base]
    if not near:
        raise BackendError(
            f"kokoro does not speak {language!r:.40}: {', '.join(LANGUAGES.values())}",
            code="unsupported_language",
        )
    return voice[0] if voice[0] in near and tag == base else near[0]
