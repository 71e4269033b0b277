"""What CUDA graphs ask of a batch, fixed sizes, changes nothing: proven here without a GPU."""

from __future__ import annotations

import random

import numpy as np
import pytest
from driving import Request, engine_of, speak_all
from qwen3_engine import runners
from qwen3_engine.frame import Row, tables
from qwen3_engine.sampler import frame_key

from voice_worker.backend import Voice


def test_sizes_cover_every_batch_and_every_length():
    assert runners.batch_sizes(1) == [1]
    assert runners.batch_sizes(20) == [1, 2, 4, 8, 12, 16, 20]
    assert runners.batch_sizes(256)[-2:] == [224, 256]
    assert runners.lengths(64) == [64]
    assert runners.lengths(2048) == [256, 512, 1024, 2048]
    assert runners.lengths(1500) == [256, 512, 1024, 1500]
    for wanted in range(1, 21):
        assert runners._next(runners.batch_sizes(20), wanted) >= wanted


def test_padding_rows_name_the_scratch_slot():
    row = Row(3, 40, 9, 1, 1, 5, 6, 50, 0.9, 0.8, 1.05)
    integers, floats = tables([row], 4, scratch=8)
    assert integers.shape == (7, 4)
    assert integers[:, 0].tolist() == [3, 40, 9, 1, 1, frame_key(5, 6), 50]
    assert floats[:, 0].tolist() == pytest.approx([0.9, 0.8, 1.05])
    assert integers[0].tolist() == [3, 8, 8, 8]
    assert (integers[1:5, 1:] == 0).all()


def test_batches_padded_for_graphs_speak_the_same(small, monkeypatch):
    """The graph path on the CPU: every batch and length is rounded up, and run directly."""
    requests = [
        Request("the quick brown fox"[: 6 + 2 * n], Voice(speaker="ryan"), {"top_p": p}, n)
        for n, p in enumerate((1.0, 0.8, 1.0, 0.9, 1.0, 1.0))
    ]
    plain = speak_all(engine_of(small, slots=5), requests, random.Random(3))
    engine = engine_of(small, slots=5, pipelined=True)
    sizes, captured = set(), set()
    run = runners.Program.__call__

    def spy(self, key, *inputs):
        sizes.add(key)
        return run(self, key, *inputs)

    monkeypatch.setattr(runners.Program, "__call__", spy)
    monkeypatch.setattr(runners.Program, "capture", lambda self, key, *_: captured.add(key))
    engine.parts.frames._graphs = engine.parts.codec._graphs = True
    padded = speak_all(engine, requests, random.Random(3))
    frames = {key for key in sizes if isinstance(key, runners.FrameKey)}
    assert {key.size for key in frames} <= {1, 2, 4, 5}
    assert {key.used for key in frames} == {256}
    assert {key.has_nucleus for key in frames} == {False, True}
    assert captured == sizes, "a size that was not captured beforehand is captured at its first use"
    for one, other in zip(plain, padded, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


def test_rows_carried_along_neither_speak_nor_change(small, monkeypatch):
    """Dense batches run every slot up to the last one; some of those wait, or belong to nobody."""
    requests = [
        Request("the quick brown fox"[: 6 + n], Voice(speaker="ryan"), {}, n) for n in range(12)
    ]
    plain = speak_all(engine_of(small, slots=5), requests, random.Random(4))
    monkeypatch.setattr(runners.FrameRunner, "dense_from", 1)
    # Dense whatever the share of rows that run idle.
    monkeypatch.setattr(runners.FrameRunner, "_is_dense", lambda _self, _rows: True)
    carried = []
    along = runners.FrameRunner._carried_along

    def spy(self, rows):
        made = along(self, rows)
        carried.append(len(made) - len(rows))
        return made

    monkeypatch.setattr(runners.FrameRunner, "_carried_along", spy)
    dense = speak_all(engine_of(small, slots=5, pipelined=True), requests, random.Random(4))
    assert sum(map(bool, carried)) > 20
    for one, other in zip(plain, dense, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


def test_a_batch_is_dense_when_most_slots_below_its_last_take_part(small):
    frames = engine_of(small, slots=40).parts.frames

    def is_dense(slots):
        return frames._is_dense([Row(s, 0, 0, 0, 1, 0, 0, 1, 1.0, 1.0, 1.0) for s in slots])

    assert is_dense(range(16))
    assert not is_dense(range(15)), "too few for it to matter"
    assert is_dense([*range(30), 39])
    assert not is_dense(range(0, 40, 2))
