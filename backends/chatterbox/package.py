"""What this backend takes from ``chatterbox``, imported so that it is quiet and needs no CUDA."""

# ruff: noqa: E402, F401

from __future__ import annotations

import os
import sys
import types

from voice_worker.backend import BackendError

# Every segment would draw progress bars into the log. tqdm reads this when it is imported.
os.environ.setdefault("TQDM_DISABLE", "1")
# oneDNN compiles its convolutions for each length of sound and keeps the last 1024, which is
# memory that grows for hours. One segment needs about 150, each of them several times.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

# torchaudio's compiled parts load CUDA's libraries, which a CPU build of torch does not have.
# Chatterbox uses its resampler and its filter bank alone, which are plain torch.
compiled = types.ModuleType("torchaudio._extension")
compiled._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
compiled._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
compiled.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
sys.modules.setdefault(compiled.__name__, compiled)

import perth
from chatterbox.models.s3gen.const import S3GEN_SIL
from chatterbox.models.t3 import T3
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.tts import REPO_ID as CLASSIC_REPO
from chatterbox.tts import ChatterboxTTS
from chatterbox.tts import punc_norm as classic_text
from chatterbox.tts_turbo import REPO_ID as TURBO_REPO
from chatterbox.tts_turbo import ChatterboxTurboTTS
from chatterbox.tts_turbo import punc_norm as turbo_text

Model = ChatterboxTurboTTS | ChatterboxTTS


def check_watermarker() -> None:
    """Raises BackendError ``not_installed`` when there is none: then nothing is to be spoken."""
    # perth swallows why it cannot be imported, and the model would call None as its last step.
    if perth.PerthImplicitWatermarker is None:
        raise BackendError(
            "the watermarker cannot be imported, and without it nothing is spoken: run"
            " `cli.py backends install chatterbox --force` (it needs setuptools < 81)",
            code="not_installed",
        )
