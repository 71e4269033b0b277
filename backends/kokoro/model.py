"""Finds Kokoro's weights and loads them with the package."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from kokoro import KModel

from voice_worker.hub import damaged, locate

REPO = "hexgrad/Kokoro-82M"
# The commit that these file names and voices belong to is the newest one of version 1.0.
CONFIG, WEIGHTS = "config.json", "kokoro-v1_0.pth"
SAMPLE_RATE = 24_000
_PREFIX = "module."


def load_model(folder: Path | None, device: str) -> KModel:
    """``folder``: laid out as the hub's repository; None is the hub.

    Raises BackendError: model_missing, model_incomplete.
    """
    config, weights = locate(REPO, CONFIG, folder=folder), locate(REPO, WEIGHTS, folder=folder)
    try:
        model = KModel(repo_id=REPO, config=str(config), model=str(weights))
        _check(model, weights)
        return model.to(device).eval()
    except torch.OutOfMemoryError:
        raise
    except (
        *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, AssertionError),
        *(RuntimeError, pickle.UnpicklingError, json.JSONDecodeError),
    ) as exc:
        raise damaged(weights.parent, REPO, exc, f"{CONFIG} and {WEIGHTS}") from exc


def _check(model: KModel, weights: Path) -> None:
    """The package silently leaves out what does not fit, and would speak from noise."""
    given = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    for part, tensors in given.items():
        own = getattr(model, part).state_dict()
        fitting = {
            name for key, tensor in tensors.items()
            if (name := key.removeprefix(_PREFIX)) in own and own[name].shape == tensor.shape
        }  # fmt: skip
        if 2 * len(fitting) < len(own):
            raise ValueError(f"its {part!r} is of another model than {CONFIG} says")
