"""Which device a model runs on: the option ``device`` of every backend that has torch.

torch is imported when a device is chosen.
"""

from __future__ import annotations

import importlib
import re

from voice_worker.backend import BackendError


def choose_device(wanted: object) -> str:
    """``cpu`` or ``cuda:N``, for auto, cpu, cuda or cuda:N; auto is the GPU where there is one.

    Raises BackendError ``no_cuda`` or ``bad_option``.
    """
    cuda = importlib.import_module("torch").cuda
    if wanted == "auto":
        return "cuda:0" if cuda.is_available() else "cpu"
    if not (found := re.fullmatch(r"cpu|cuda(?::([0-9]+))?", str(wanted))):
        raise BackendError(
            f"device must be auto, cpu or cuda:N, not {wanted!r:.40}", code="bad_option"
        )
    if found[0] == "cpu":
        return "cpu"
    if not cuda.is_available():
        raise BackendError(
            f"device {wanted} was asked for, but this torch sees no CUDA device; set device: cpu, "
            "or install the backend where nvidia-smi lists a GPU",
            code="no_cuda",
        )
    number = int(found[1] or 0)
    if number >= cuda.device_count():
        raise BackendError(
            f"device {wanted} was asked for; this machine has {cuda.device_count()} of them",
            code="no_cuda",
        )
    return f"cuda:{number}"
