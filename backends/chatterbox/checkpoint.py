"""Finds Chatterbox's weights, checks that they are whole, and loads them with the package."""

from __future__ import annotations

from pathlib import Path

import torch
from package import (
    CLASSIC_REPO,
    TURBO_REPO,
    ChatterboxTTS,
    ChatterboxTurboTTS,
    Model,
    check_watermarker,
)
from safetensors import SafetensorError

from voice_worker.backend import BackendError
from voice_worker.hub import damaged, locate

REPOSITORIES = {"turbo": TURBO_REPO, "classic": CLASSIC_REPO}
FILES = {
    "turbo": (
        "t3_turbo_v1.safetensors",
        "s3gen_meanflow.safetensors",
        "ve.safetensors",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "conds.pt",
    ),
    "classic": (
        "t3_cfg.safetensors",
        "s3gen.safetensors",
        "ve.safetensors",
        "tokenizer.json",
        "conds.pt",
    ),
}
# A folder of somebody's own weights speaks without these: in cloned voices, with default tokens.
OPTIONAL = {"added_tokens.json", "special_tokens_map.json", "conds.pt"}


def load(model: str, device: str) -> Model:
    """``model``: turbo, classic, or a folder with the files of one of them.

    Raises BackendError: ``model_missing``, ``model_incomplete``, ``bad_option``, ``not_installed``.
    """
    check_watermarker()
    kind, folder = find(model)
    made = ChatterboxTurboTTS if kind == "turbo" else ChatterboxTTS
    try:
        return made.from_local(folder, device)
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as exc:
        raise damaged(folder, REPOSITORIES[kind], exc) from exc


def find(model: str) -> tuple[str, Path]:
    """The kind, turbo or classic, and the folder its files are in."""
    if model in REPOSITORIES:
        paths = [locate(REPOSITORIES[model], name) for name in FILES[model]]
        return model, paths[0].parent
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise BackendError(
            f"option 'model' must be turbo, classic or a folder with their files; {model!r} is"
            " none of them",
            code="bad_option",
        )
    kind = "classic" if (folder / FILES["classic"][0]).exists() else "turbo"
    for name in FILES[kind]:
        if name not in OPTIONAL:
            locate(REPOSITORIES[kind], name, folder=folder)
    return kind, folder
