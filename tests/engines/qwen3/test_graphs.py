"""The CUDA path, its graphs replayed on the CPU: see fake_cuda for what that can show."""

from __future__ import annotations

import random
from contextlib import contextmanager

import fake_cuda
import numpy as np
import pytest
import torch
from driving import RYAN, Request, captured, cuda_engine, engine_of, speak, speak_all
from qwen3_engine import runners
from qwen3_engine.engine import Engine
from qwen3_engine.options import EngineOptions
from qwen3_engine.runners import Program
from test_parity import recording

from voice_worker.backend import BackendError, Sample, Voice

OPTIONS = {"slots": 5, "max_length": 256, "codec_group": 2}


def graphs(runner):
    return {key: entry.graph for key, entry in runner._program._captured.items()}


@pytest.fixture
def cuda():
    with fake_cuda.installed() as fake:
        yield fake


@pytest.mark.parametrize("dense_from", [2, 16])
def test_graphs_speak_what_the_same_code_speaks_without_them(small, monkeypatch, dense_from):
    requests = [
        Request("the quick brown fox"[: 6 + 2 * n], RYAN, {"top_p": p, "temperature": t}, n)
        for n, (p, t) in enumerate(((1.0, 0.9), (0.8, 0.9), (1.0, 0.0), (0.9, 1.2), (1.0, 0.7)))
    ]
    plain = speak_all(engine_of(small, **OPTIONS), requests, random.Random(3))
    monkeypatch.setattr(runners.FrameRunner, "dense_from", dense_from)
    with fake_cuda.installed():
        engine = captured(cuda_engine(small, **OPTIONS))
        before = graphs(engine.parts.frames)
        assert {key.size for key in before} == {1, 2, 4, 5}
        assert not any(key.has_nucleus for key in before)
        spoken = speak_all(engine, requests, random.Random(3))
    after = graphs(engine.parts.frames)
    assert {key.has_nucleus for key in set(after) - set(before)} == {True}
    assert sum(graph.replays for graph in after.values()) > 20
    assert sum(graph.replays for graph in graphs(engine.parts.codec).values()) > 20
    for one, other in zip(plain, spoken, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


def refusing(cuda, error):
    """What torch says when a capture ends badly is raised as the block is left."""

    @contextmanager
    def graph(*args, **kwargs):
        with cuda.capture(*args, **kwargs):
            yield
        raise error

    return graph


def test_a_load_whose_graphs_cannot_be_made_says_how_to_do_without(checkpoints, cuda, monkeypatch):
    error = torch.AcceleratorError("CUDA error: operation not permitted")
    monkeypatch.setattr(torch.cuda, "graph", refusing(cuda, error))
    options = {"model": str(checkpoints["custom_voice"]), **OPTIONS}
    with pytest.raises(BackendError, match="operation not permitted") as failure:
        Engine.load(EngineOptions.from_map(options))
    assert failure.value.code == "bad_option"
    assert "graphs: false" in str(failure.value)
    assert Engine.load(EngineOptions.from_map({**options, "graphs": False})).slots == 5


def test_a_graph_that_finds_no_memory_is_not_told_as_one_that_cannot_be_made(cuda, monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch.cuda, "graph", refusing(cuda, error))
    stream = torch.cuda.Stream()
    program = Program(lambda _key, x: x + 1, fake_cuda.DEVICE, stream, use_graphs=True)
    with pytest.raises(torch.OutOfMemoryError):
        program.capture("key", torch.ones(2))


def test_without_graphs_the_device_speaks_the_same(small, monkeypatch):
    request = Request("the quick brown fox", RYAN, seed=4)
    plain = speak(engine_of(small, **OPTIONS), request)
    with fake_cuda.installed():
        engine = cuda_engine(small, **OPTIONS, graphs=False)
        spoken = speak(engine, request)
    assert not graphs(engine.parts.frames)
    assert spoken.pieces == plain.pieces


def test_a_long_turn_rolls_over_on_the_device_as_on_the_cpu(small, monkeypatch):
    text = "The quick fox jumps over it. " * 5
    plain = speak(engine_of(small, **OPTIONS), Request(text, RYAN, seed=1))
    with fake_cuda.installed() as fake:
        engine = captured(cuda_engine(small, **OPTIONS))
        fake.waits.clear()
        spoken = speak(engine, Request(text, RYAN, seed=1))
        assert not fake.waits
    assert len(plain.pieces) > 1
    assert spoken.pieces == plain.pieces


def test_a_clone_with_its_transcript_is_led_in_on_the_device_too(packages, tmp_path, monkeypatch):
    recording(tmp_path / "a.wav", seconds=1.0)
    voice = Voice(samples=(Sample(tmp_path / "a.wav", "hello world"),))
    request = Request("The quick brown fox jumps over the lazy dog.", voice, seed=2)
    options = {"slots": 1, "max_length": 256, "codec_group": 1}
    plain = speak(engine_of(packages["base"], **options), request, max_frames=30)
    with fake_cuda.installed():
        engine = captured(cuda_engine(packages["base"], **options))
        spoken = speak(engine, request, max_frames=30)
    assert len(plain.frames) > 5
    assert spoken.frames[:30] == plain.frames[:30]


def test_the_host_reads_a_step_while_the_next_one_runs(small, cuda):
    """The first step starts a frame and waits for nothing; sound comes with the second."""
    engine = captured(cuda_engine(small, **OPTIONS))
    engine.admit(1, RYAN, {}, 0)
    engine.feed(1, "the quick brown fox ")
    (first,) = engine.step([1])
    assert not len(first.samples)
    assert len(engine._flights) == 1
    (second,) = engine.step([1])
    assert len(second.samples) == 1920
    assert len(engine._flights) == 1
