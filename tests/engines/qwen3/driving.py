"""Drives an engine as a worker would: text at random moments, batches that change, and a record."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import torch
from qwen3_engine import loading
from qwen3_engine.engine import Engine
from qwen3_engine.job import Job
from qwen3_engine.options import EngineOptions

from voice_worker.backend import Voice

CPU = torch.device("cpu")
RYAN = Voice(speaker="ryan")


def engine_of(wrapper: Any, **options: Any) -> Engine:
    """An engine over a package model that stays usable itself."""
    return Engine(wrapper, EngineOptions.from_map({"model": "unused", **options}), CPU)


def cuda_engine(
    wrapper: Any, dtype: torch.dtype | None = None, *, is_shared: bool = False, **options: Any
) -> Engine:
    """An engine over the checkpoint of ``wrapper``, loaded to a device that is not there."""
    checkpoint = loading.inspect(Path(wrapper.model.name_or_path))
    loaded = loading.load(checkpoint, fake_cuda.DEVICE, dtype or wrapper.model.dtype)
    made = EngineOptions.from_map({"model": "unused", **options})
    return Engine(loaded, made, fake_cuda.DEVICE, is_shared=is_shared)


def captured(engine: Engine) -> Engine:
    """``engine`` with the graphs that it makes when it is loaded."""
    engine.parts.frames.capture_all()
    engine.parts.codec.capture_all(engine.group_sizes())
    return engine


@dataclass
class Spoken:
    """What came of one turn. ``pieces`` are the frames of each piece."""

    pieces: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    sound: list[np.ndarray] = field(default_factory=list)
    is_finished: bool = False
    error: Exception | None = None
    turn: Job | None = None

    @property
    def frames(self) -> list[tuple[int, ...]]:
        return [frame for _, piece in sorted(self.pieces.items()) for frame in piece]

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.float32), *self.sound])


@dataclass
class Request:
    """One turn to speak. ``chunks`` is its text, cut somehow."""

    text: str
    voice: Voice = field(default_factory=Voice)
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def chunks(self, random_: random.Random) -> list[str]:
        """The text cut at random places, a few characters at a time."""
        chunks, at = [], 0
        while at < len(self.text):
            size = random_.randint(1, 7)
            chunks.append(self.text[at : at + size])
            at += size
        return chunks


def note(engine: Engine, spoken: dict[int, Spoken]) -> None:
    """Write down the frames of every turn, also those of a turn that just ended."""
    for job, record in spoken.items():
        if job in engine._streams:
            record.turn = engine._streams[job].job
        turn = record.turn
        if turn is not None and turn.frames:
            # After its end a piece's frames stay until the next one begins.
            record.pieces[turn.piece - (not turn.is_speaking)] = list(turn.frames)


def step(engine: Engine, jobs: list[int], spoken: dict[int, Spoken]) -> None:
    """One step over the runnable ``jobs``; what came goes into ``spoken``."""
    note(engine, spoken)
    runnable = [job for job in jobs if engine.is_runnable(job)]
    if not runnable:
        return
    outputs = engine.step(runnable)
    assert [output.job for output in outputs] == runnable
    for output in outputs:
        record = spoken[output.job]
        assert not record.is_finished
        record.sound.append(output.samples)
        record.is_finished = output.is_finished
        record.error = output.error
    note(engine, spoken)


def speak(
    engine: Engine, request: Request, *, whole: bool = True, max_frames: int = 10_000, job: int = 1
) -> Spoken:
    """One turn by itself, its text all there at once."""
    spoken = {job: Spoken()}
    engine.admit(job, request.voice, request.params, request.seed)
    engine.feed(job, request.text)
    if whole:
        engine.finish_text(job)
    while job in engine._streams and len(spoken[job].frames) < max_frames:
        assert engine.is_runnable(job) or not whole
        if not engine.is_runnable(job):
            break
        step(engine, [job], spoken)
    if job in engine._streams and whole:
        engine.cancel(job)
    return spoken[job]


def speak_all(
    engine: Engine, requests: list[Request], random_: random.Random, *, max_frames: int = 10_000
) -> list[Spoken]:
    """Many turns that join and leave as slots come free, their text arriving at random."""
    spoken: dict[int, Spoken] = {}
    waiting = list(enumerate(requests))
    text: dict[int, list[str]] = {}
    live: list[int] = []
    for _ in range(100_000):
        if not waiting and not live:
            return [spoken[job] for job in range(len(requests))]
        if waiting and len(live) < engine.slots and random_.random() < 0.5:
            job, request = waiting.pop(0)
            engine.admit(job, request.voice, request.params, request.seed)
            spoken[job], text[job] = Spoken(), request.chunks(random_)
            live.append(job)
        for job in live:
            if text[job] is not None and random_.random() < 0.6:
                if text[job]:
                    engine.feed(job, text[job].pop(0))
                else:
                    engine.finish_text(job)
                    text[job] = None  # type: ignore[assignment]
        step(engine, live, spoken)
        for job in list(live):
            if job in engine._streams and len(spoken[job].frames) >= max_frames:
                engine.cancel(job)
            if job not in engine._streams:
                live.remove(job)
    raise AssertionError("the schedule never ended")
