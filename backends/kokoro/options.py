"""The backend's options and a job's, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voice_worker import BackendError
from voice_worker.devices import choose_device


@dataclass(frozen=True)
class Options:
    """What stands under ``options`` in backends.yaml.

    ``model``: a folder laid out as the hub's repository; None is the hub. ``device``: cpu, cuda,
    cuda:N; auto is the GPU where there is one.
    """

    model: Path | None = None
    device: str = "auto"
    threads: int = 1

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> Options:
        """Raises BackendError: bad_option, model_missing, no_cuda."""
        if unknown := set(options) - set(cls.__dataclass_fields__):
            raise _bad(f"no option {min(unknown)!r}: {', '.join(cls.__dataclass_fields__)}")
        folder = options.get("model") and Path(str(options["model"])).expanduser()
        if folder and not folder.is_dir():
            raise BackendError(
                f"options.model names the folder {folder}, which is not there",
                code="model_missing",
            )
        device, threads = choose_device(options.get("device", "auto")), options.get("threads", 1)
        if type(threads) is not int or not 1 <= threads <= 64:
            raise _bad("threads must be a number from 1 to 64")
        return cls(folder or None, device, threads)


def speed(value: object) -> float:
    """Raises BackendError bad_option."""
    if type(value) not in (int, float) or not 0.25 <= value <= 4:  # type: ignore[operator]
        raise _bad(f"speed must be a number from 0.25 to 4, not {value!r:.40}")
    return float(value)  # type: ignore[arg-type]


def _bad(message: str) -> BackendError:
    return BackendError(message, code="bad_option")
