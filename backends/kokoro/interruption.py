"""Lets go of the model in the middle of a piece, which the package makes in one go.

A cancel is heeded when the adapter yields, and a piece can take seconds. So the model runs in a
thread of its own, the adapter yields nothing while it waits, and when it is closed at one of those
yields, the next layer that begins raises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
import torch

Made = TypeVar("Made")
NOTHING = np.zeros(0, np.float32)
PATIENCE = 0.05  # seconds between two questions whether it was cancelled


class _Interrupted(Exception):
    pass


class Interruptible:
    """Runs work that calls ``model``, one at a time."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._is_stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, "kokoro")
        for layer in model.modules():
            layer.register_forward_pre_hook(self._check)

    def run(self, work: Callable[[], Made]) -> Generator[np.ndarray, None, Made]:
        """``made = yield from run(work)``. Closing it waits for the layer that is at work."""
        made = self._thread.submit(torch.inference_mode()(work))
        try:
            while not wait([made], PATIENCE).done:
                yield NOTHING
            return made.result()
        finally:
            self._is_stopping.set()
            wait([made])
            self._is_stopping.clear()

    def _check(self, _layer: torch.nn.Module, _inputs: object) -> None:
        if self._is_stopping.is_set():
            raise _Interrupted
