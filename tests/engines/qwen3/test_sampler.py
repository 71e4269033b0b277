"""Sampling: the right distribution, the package's cuts, and noise that belongs to one slot."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.sampler import Dice, Noise, frame_key, gumbel, make_key, penalise
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


def noise_of(keys, frames, sizes):
    """Noise of each (key, frame), [n, sum of sizes]."""
    frame_keys = [frame_key(int(key), int(frame)) for key, frame in zip(keys, frames, strict=True)]
    return Noise(list(sizes), torch.device("cpu"))(torch.tensor(frame_keys))


def dice_of(noise, temperature=1.0, top_k=64, top_p=None):
    rows = len(noise)
    nucleus = None if top_p is None else torch.full((rows,), top_p)
    heats = torch.as_tensor(temperature).expand(rows)
    return Dice.of(noise.clone(), heats, torch.full((rows,), top_k), nucleus, 64)


def test_codes_are_drawn_from_the_softmax():
    torch.manual_seed(0)
    logits = torch.randn(1, 12) * 1.5
    draws = 20_000
    noise = noise_of([make_key(7, 0)] * draws, range(draws), [12])
    codes = dice_of(noise, temperature=0.8).choose(logits.expand(draws, -1))
    share = torch.bincount(codes, minlength=12) / draws
    expected = torch.softmax(logits[0] / 0.8, -1)
    # Five standard deviations of a share, and the seed is fixed.
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all()


def test_noise_of_codebooks_frames_and_seeds_is_unrelated():
    keys = [make_key(seed, 0) for seed in range(40)]
    noise = noise_of(keys, [number % 5 for number in range(40)], [200] * 4)
    correlation = torch.corrcoef(noise) - torch.eye(40)
    assert correlation.abs().max() < 0.2
    books = torch.corrcoef(noise.view(40, 4, 200).transpose(0, 1).flatten(1)) - torch.eye(4)
    assert books.abs().max() < 0.1
    assert abs(float(noise.mean()) - 0.5772) < 0.02
    assert len(torch.unique(noise)) > 0.99 * noise.numel()


def test_noise_is_finite_whatever_the_hash():
    """A code of infinite noise would be taken, and be no number where temperature 0 removes it."""
    words = torch.tensor([0, 511, 512, 2**31, 2**32 - 512, 2**32 - 1])
    noise = gumbel(words)
    assert noise.isfinite().all()
    assert (noise.diff() >= 0).all()


def test_noise_is_the_hash_of_key_frame_codebook_and_code():
    """Written out for single numbers; one pass over all codebooks gives the same."""

    def mixed(x):
        x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    def gumbel(key, frame, codebook, code):
        state = mixed(key ^ mixed(frame + 0x9E3779B9 & 0xFFFFFFFF))
        state = mixed(state ^ (codebook + 1) * 0x9E3779B9 & 0xFFFFFFFF)
        bits = mixed(state ^ mixed(code + 1))
        return -math.log(-math.log(((bits >> 9) + 0.5) * 2.0**-23))

    sizes, keys, frames = [7, 5, 5], [make_key(seed, 0) for seed in (0, 9)], [3, (2 << 20) + 1]
    expected = [
        [gumbel(key, frame, book, code) for book, size in enumerate(sizes) for code in range(size)]
        for key, frame in zip(keys, frames, strict=True)
    ]
    found = noise_of(keys, frames, sizes)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_keys_differ_by_seed_and_by_attempt():
    keys = {make_key(seed, attempt) for seed in (0, 1, 2**32, 2**40 + 1, -1) for attempt in (0, 1)}
    assert len(keys) == 10


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 64), st.floats(0.05, 1.0), st.floats(0.3, 1.9))
def test_the_cuts_are_those_of_transformers(seed, top_k, top_p, temperature):
    torch.manual_seed(seed)
    logits = torch.randn(4, 80) * 2

    def allowed(top_p):
        kept = TopKLogitsWarper(top_k)(None, logits / temperature)
        return (TopPLogitsWarper(top_p)(None, kept) if top_p < 1.0 else kept) > -torch.inf

    # Sums of chances are rounded: a code that lies so near to the cut may be on either side of it.
    most, fewest = allowed(top_p + 1e-5), allowed(top_p - 1e-5)
    found = torch.zeros_like(most)
    for draw in range(60):
        noise = noise_of(range(9, 13), [draw] * 4, [80])
        # Flat logits at the sampling temperature would need very many draws: heat the noise.
        codes = dice_of(noise * 20, temperature, top_k, top_p).choose(logits)
        found[torch.arange(4), codes] = True
    assert not (found & ~most).any()
    assert (found.sum(1) >= torch.minimum(fewest.sum(1), torch.tensor(2))).all()


def test_leaving_top_p_out_is_a_top_p_of_one():
    torch.manual_seed(1)
    logits = torch.randn(50, 90)
    noise = noise_of(range(50), range(50), [90])
    with_cut = dice_of(noise, top_k=30, top_p=1.0).choose(logits)
    assert torch.equal(with_cut, dice_of(noise, top_k=30).choose(logits))


def test_temperature_zero_is_the_argmax_beside_rows_that_sample():
    torch.manual_seed(2)
    logits = torch.randn(6, 90)
    noise = noise_of(range(6), range(6), [90])
    codes = dice_of(noise, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])).choose(logits)
    assert torch.equal(codes[::2], logits.argmax(-1)[::2])


@pytest.mark.parametrize("penalty", [1.0, 1.05, 1.7])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    torch.manual_seed(3)
    logits = torch.randn(3, 40)
    history = torch.randint(0, 40, (3, 12))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter(1, history, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    torch.testing.assert_close(penalise(logits, seen, torch.full((3,), penalty)), expected)
