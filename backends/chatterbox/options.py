"""What backends.yaml and a connection may ask for, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sampling import TOKENS_PER_SECOND, Sampling

from voice_worker.backend import BackendError

# T3's positions: the prompt and the text have to fit in beside them.
MOST_SECONDS = 120.0

# name: lowest, highest, then Turbo's default and classic's. None: that one does not have it.
LIMITS: dict[str, tuple[float, float, float | None, float | None]] = {
    "temperature": (0.05, 5.0, 0.8, 0.8),
    "top_p": (0.01, 1.0, 0.95, 1.0),
    "top_k": (1, 6_563, 1000, None),
    "min_p": (0.0, 1.0, None, 0.05),
    "repetition_penalty": (1.0, 2.0, 1.2, 1.2),
    "exaggeration": (0.0, 2.0, None, 0.5),
    "cfg_weight": (0.0, 1.0, None, 0.5),
    "max_seconds": (0.5, MOST_SECONDS, 40.0, 40.0),
}


@dataclass(frozen=True)
class Options:
    """The defaults of one loaded model, over which a segment's ``params`` are laid."""

    defaults: Mapping[str, float]

    @classmethod
    def of(cls, kind: str, given: Mapping[str, Any]) -> Options:
        """``given``: what backends.yaml says besides model, device and threads."""
        column = 2 if kind == "turbo" else 3
        own = {name: row[column] for name, row in LIMITS.items() if row[column] is not None}
        if unknown := sorted(given.keys() - own.keys()):
            raise _bad(
                f"unknown option {unknown[0]!r}; chatterbox {kind} takes model, device, threads,"
                f" {', '.join(own)}"
            )
        return cls({**own, **{name: _number(name, value) for name, value in given.items()}})

    def asked(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Every option by name. Raises BackendError ``bad_option``."""
        return {name: _number(name, params.get(name, own)) for name, own in self.defaults.items()}


def sampling_of(asked: Mapping[str, float]) -> Sampling:
    limit = round(asked["max_seconds"] * TOKENS_PER_SECOND)
    fields = {name: asked[name] for name in asked.keys() - {"max_seconds", "exaggeration"}}
    if "top_k" in fields:
        fields["top_k"] = int(fields["top_k"])
    return Sampling(limit=limit, **fields)


def _number(name: str, value: Any) -> float:
    low, high, *_ = LIMITS[name]
    if type(value) not in (int, float) or not low <= value <= high:
        raise _bad(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return value


def _bad(message: str) -> BackendError:
    return BackendError(message, code="bad_option")
