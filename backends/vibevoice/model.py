"""Finds a checkpoint and loads it with transformers' classes; nothing is left at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from transformers import VibeVoiceForConditionalGeneration, VibeVoiceProcessor

from voice_worker import BackendError, hub

# The checkpoint in transformers' format; Microsoft's own has another layout and does not load.
REPO = "vibevoice/VibeVoice-1.5B-hf"
FILES = ("config.json", "processor_config.json", "tokenizer.json")
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


class Model(NamedTuple):
    """``net`` makes sound of token ids, which ``processor`` makes of text."""

    net: VibeVoiceForConditionalGeneration
    processor: VibeVoiceProcessor


def load(model: str, device: torch.device, dtype: str = "auto") -> Model:
    """``model``: a name on the hub, or a folder laid out as its repository is. ``dtype``: auto,
    the checkpoint's own, or the name of one of torch's.

    Raises BackendError: model_missing, model_incomplete, bad_option.
    """
    folder = find(model)
    try:
        processor = VibeVoiceProcessor.from_pretrained(folder, local_files_only=True)
        net, about = VibeVoiceForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        # What is missing is random after that, and would be heard as noise.
        if missing := sorted(about["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
        return Model(net.to(device).eval(), processor)
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise hub.damaged(folder, REPO, exc) from exc


def find(model: str) -> Path:
    """The folder of ``model``, downloaded if it has to be."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if name := _missing(folder):
            raise BackendError(
                f"{folder} has no {name}: fetch it with `hf download {REPO} --local-dir {folder}`",
                code="model_missing",
            )
    elif folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise BackendError(
            f"options.model names the folder {model}, which is not there; a name on the hub is"
            f" like {REPO}",
            code="model_missing",
        )
    else:
        folder = hub.snapshot(model, lambda cached: _missing(cached) is None)
    _check(folder / "config.json")
    return folder


def _missing(folder: Path) -> str | None:
    """The name of a file without which the model cannot be loaded."""
    needed = [*FILES]
    if (folder / INDEX).is_file():
        needed += sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        needed.append(WEIGHTS)
    return next((name for name in needed if not (folder / name).is_file()), None)


def _check(config: Path) -> None:
    if (kind := _json(config).get("model_type")) != "vibevoice":
        raise BackendError(
            f"{config} is of a {kind!r} model; this backend loads transformers' VibeVoice, such as"
            f" {REPO}",
            code="bad_option",
        )
    if "text_config" not in _json(config):
        raise BackendError(
            f"{config} is in Microsoft's own format: take {REPO}, which is the same model in"
            " transformers' one",
            code="bad_option",
        )


def _json(path: Path) -> dict:
    try:
        read = json.loads(path.read_text("utf-8"))
    except ValueError as exc:
        raise BackendError(f"{path} is no JSON: fetch it again", code="model_incomplete") from exc
    return read if isinstance(read, dict) else {}
