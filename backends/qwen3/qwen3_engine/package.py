"""Imports the ``qwen_tts`` package without what only its 25 Hz tokenizer and its demo need.

The package pulls in torchaudio, sox, onnxruntime, einops and librosa at import time. Nothing this
engine runs touches them, apart from one filter bank that transformers can make too.
"""

from __future__ import annotations

import importlib.machinery
import io
import sys
import types
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from voice_worker.backend import BackendError

_STOOD_IN = (
    "torchaudio",
    "torchaudio.compliance",
    "torchaudio.compliance.kaldi",
    "sox",
    "onnxruntime",
    "einops",
    "librosa",
    "librosa.filters",
)


def _mel(
    *, sr: int, n_fft: int, n_mels: int = 128, fmin: float = 0.0, fmax: float | None = None
) -> np.ndarray:
    """librosa.filters.mel with its defaults (slaney), to within 2e-9."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        n_fft // 2 + 1, n_mels, fmin, fmax or sr / 2, sr, norm="slaney", mel_scale="slaney"
    )
    return bank.T.astype(np.float32)


def _unused(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("a part of qwen_tts was reached that this backend does not install")


def import_package() -> types.ModuleType:
    """``import qwen_tts`` with stand-ins in place. Idempotent. Raises BackendError."""
    for name in _STOOD_IN:
        if name in sys.modules:
            continue
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []  # type: ignore[attr-defined]
        module.__version__ = "0.0.0"  # type: ignore[attr-defined]
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    if not hasattr(sys.modules["librosa.filters"], "mel"):
        sys.modules["librosa.filters"].mel = _mel  # type: ignore[attr-defined]
    for name in ("rearrange", "repeat"):
        if not hasattr(sys.modules["einops"], name):
            setattr(sys.modules["einops"], name, _unused)
    try:
        # Its 25 Hz tokenizer asks for flash-attn on stdout. Nothing here would use it.
        with redirect_stdout(io.StringIO()):
            import qwen_tts
    except ModuleNotFoundError as exc:
        raise BackendError(
            f"{exc.name} is not installed; run `cli.py backends install qwen3` (by hand: the two "
            "requirements files in order, the second with --no-deps)",
            code="not_installed",
        ) from exc
    return qwen_tts
