"""Qwen3-TTS behind the worker's interface: the adapter around ``qwen3_engine``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from qwen3_engine.engine import Engine
from qwen3_engine.options import TURN_OPTIONS, EngineOptions

from voice_worker import BackendInfo, BatchBackend, Speaker, Step, Turn, Voice, serve

# From the model card; a checkpoint only holds their names.
SPEAKERS = {
    "vivian": ("Vivian", "zh", "female"),
    "serena": ("Serena", "zh", "female"),
    "uncle_fu": ("Uncle Fu", "zh", "male"),
    "dylan": ("Dylan", "zh", "male"),
    "eric": ("Eric", "zh", "male"),
    "ryan": ("Ryan", "en", "male"),
    "aiden": ("Aiden", "en", "male"),
    "ono_anna": ("Ono Anna", "ja", "female"),
    "sohee": ("Sohee", "ko", "female"),
}


class Qwen3(BatchBackend):
    name = "qwen3"

    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        self.engine = Engine.load(EngineOptions.from_map(options))
        voices = self.engine.voices
        if voices.kind != "base":
            self.engine.prepare(Voice())
        takes = ("instructions",) if voices.takes_instructions else ()
        return BackendInfo(
            sample_rate=24_000,
            languages=tuple(voices.languages),
            speakers=tuple(
                Speaker(name, *SPEAKERS.get(name, (name, "", ""))) for name in voices.speakers
            ),
            default_speaker=voices.default,
            clones=voices.kind == "base",
            designs=voices.kind == "voice_design",
            instructs=voices.takes_instructions,
            options=(*TURN_OPTIONS, *takes),
            streams_text=True,
            slots=self.engine.slots,
            rounds=True,
            device=str(self.engine.device),
            memory_mb=_memory_mb(self.engine.device),
        )

    def prepare(self, voice: Voice) -> None:
        self.engine.prepare(voice)

    def admit(self, job: Turn) -> None:
        self.engine.admit(job.job, job.voice, job.params, job.seed)

    def feed(self, job: int, text: str) -> None:
        self.engine.feed(job, text)

    def finish_text(self, job: int) -> None:
        self.engine.finish_text(job)

    def cancel(self, job: int) -> None:
        self.engine.cancel(job)

    def is_runnable(self, job: int) -> bool:
        return self.engine.is_runnable(job)

    def step(self, runnable: Sequence[int]) -> list[Step]:
        return [
            Step(out.job, out.samples, is_finished=out.is_finished, error=out.error)
            for out in self.engine.step(runnable)
        ]

    def counts(self) -> Mapping[str, int]:
        return asdict(self.engine.counters)


def _memory_mb(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return float(np.round(torch.cuda.memory_reserved(device) / 2**20))


if __name__ == "__main__":
    serve(Qwen3())
