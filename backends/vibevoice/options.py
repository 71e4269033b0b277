"""The backend's options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model import REPO
from speech import Style

from voice_worker import BackendError
from voice_worker.devices import choose_device

DTYPES = ("auto", "float32", "bfloat16")
# name: lowest, highest. What a connection's ``opts`` may say, too.
LIMITS = {"guidance_scale": (1.0, 5.0), "diffusion_steps": (2, 50)}


@dataclass(frozen=True)
class Options:
    """What stands under ``options`` in backends.yaml.

    ``model``: a name on the hub or a folder. ``dtype``: auto is the checkpoint's own, bfloat16 for
    the published ones; float32 takes twice the memory, and less time on a CPU without bfloat16.
    """

    model: str = REPO
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 1
    style: Style = field(default_factory=Style)

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> Options:
        """Raises BackendError ``bad_option`` or ``no_cuda``, with what was expected."""
        own = {name: value for name, value in options.items() if name not in LIMITS}
        known = {*cls.__dataclass_fields__, *LIMITS} - {"style"}
        if unknown := sorted(set(options) - known):
            raise _bad(f"no option {unknown[0]!r}: {', '.join(sorted(known))}")
        made = cls(**own, style=styled(Style(), options))
        if not isinstance(made.model, str) or not made.model:
            raise _bad("model must be a name on the hub or a folder")
        if type(made.threads) is not int or not 1 <= made.threads <= 64:
            raise _bad("threads must be a number from 1 to 64")
        if made.dtype not in DTYPES:
            raise _bad(f"dtype must be auto, float32 or bfloat16, not {made.dtype!r:.40}")
        return replace(made, device=choose_device(made.device))


def styled(style: Style, params: Mapping[str, Any]) -> Style:
    """``style`` with what ``params`` say otherwise. Raises BackendError ``bad_option``."""
    asked = {name: _number(name, params[name]) for name in LIMITS if name in params}
    return Style(
        guidance_scale=asked.get("guidance_scale", style.guidance_scale),
        diffusion_steps=int(asked.get("diffusion_steps", style.diffusion_steps)),
    )


def _number(name: str, value: Any) -> float:
    low, high = LIMITS[name]
    is_number = type(value) is int or (type(value) is float and isinstance(low, float))
    if not is_number or not low <= value <= high:
        kind = "number" if isinstance(low, float) else "whole number"
        raise _bad(f"{name} must be a {kind} from {low:g} to {high:g}, not {value!r:.40}")
    return float(value)


def _bad(message: str) -> BackendError:
    return BackendError(message, code="bad_option")
