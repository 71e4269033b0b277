"""The backend's options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from languages import MODELS, tag_of

from voice_worker import BackendError
from voice_worker.devices import choose_device


@dataclass(frozen=True)
class Options:
    """What stands under ``options`` in backends.yaml.

    ``languages``: names of the package's models (``english``, ``german_24l``), one a language.
    ``model``: a folder laid out as the hub's repository; None is the hub. ``temperature`` None is
    what each model recommends. ``quantize``: int8 layers, None where torch has them; twice as fast
    and half as large, without a loss that the package's authors could measure.
    """

    languages: tuple[str, ...] = ("english",)
    model: Path | None = None
    temperature: float | None = None
    quantize: bool | None = None
    device: str = "cpu"
    threads: int = 1

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> Options:
        """Raises BackendError ``bad_option`` or ``no_cuda``, with what was expected."""
        if unknown := set(options) - set(cls.__dataclass_fields__):
            raise _bad(f"no option {sorted(unknown)[0]!r}: {', '.join(cls.__dataclass_fields__)}")
        given = dict(options)
        languages = given.pop("languages", ["en"])
        if not isinstance(languages, (list, tuple)) or not languages:
            raise _bad("languages must be a list such as [en, de]")
        names = tuple(MODELS.get(str(entry).lower(), str(entry)) for entry in languages)
        if len({tag_of(name) for name in names}) != len(names):
            raise _bad("languages names the same language twice")
        model = given.pop("model", None)
        folder = None if model is None else Path(str(model)).expanduser()
        if folder is not None and not folder.is_dir():
            raise BackendError(
                f"options.model names the folder {folder}, which is not there",
                code="model_missing",
            )
        temperature(given.get("temperature"))
        made = cls(names, folder, **given)
        if made.quantize not in (True, False, None):
            raise _bad("quantize must be true or false")
        if type(made.threads) is not int or not 1 <= made.threads <= 64:
            raise _bad("threads must be a number from 1 to 64")
        made = replace(made, device=choose_device(made.device))
        if made.device != "cpu" and made.quantize:
            raise _bad("quantize works on the CPU only")
        if made.quantize is None:
            is_able = (
                made.device == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
            )
            return replace(made, quantize=is_able)
        return made


def temperature(value: object, default: float | None = None) -> float | None:
    """``value`` if it is a temperature, ``default`` if it is None. Raises ``bad_option``."""
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 <= value <= 2:  # type: ignore[operator]
        raise _bad(f"temperature must be a number from 0 to 2, not {value!r:.40}")
    return float(value)  # type: ignore[arg-type]


def _bad(message: str) -> BackendError:
    return BackendError(message, code="bad_option")
