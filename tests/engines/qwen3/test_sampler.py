"""Sampling: the right distribution, the package's cuts, and noise that belongs to one slot."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.sampler import choose, gumbel, make_key, penalise
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


def controls(rows, temperature=1.0, top_k=64, top_p=1.0):
    return (
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
    )


def test_codes_are_drawn_from_the_softmax():
    torch.manual_seed(0)
    logits = torch.randn(1, 12) * 1.5
    draws = 20_000
    keys = torch.full((draws,), make_key(7, 0))
    noise = gumbel(keys, torch.arange(draws), 0, 1, 12)[:, 0]
    temperature, top_k, _ = controls(draws, temperature=0.8)
    codes = choose(logits.expand(draws, -1), noise, temperature, top_k, None, 64)
    share = torch.bincount(codes, minlength=12) / draws
    expected = torch.softmax(logits[0] / 0.8, -1)
    # Five standard deviations of a share, and the seed is fixed.
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all()


def test_noise_of_codebooks_frames_and_seeds_is_unrelated():
    keys = torch.tensor([make_key(seed, 0) for seed in range(40)])
    noise = gumbel(keys, torch.arange(40) % 5, 0, 4, 200).flatten(1)
    correlation = torch.corrcoef(noise) - torch.eye(40)
    assert correlation.abs().max() < 0.2
    assert abs(float(noise.mean()) - 0.5772) < 0.02
    assert len(torch.unique(noise)) > 0.99 * noise.numel()


def test_keys_differ_by_seed_and_by_attempt():
    keys = {make_key(seed, attempt) for seed in (0, 1, 2**32, 2**40 + 1, -1) for attempt in (0, 1)}
    assert len(keys) == 10


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 64), st.floats(0.05, 1.0), st.floats(0.3, 1.9))
def test_the_cuts_are_those_of_transformers(seed, top_k, top_p, temperature):
    torch.manual_seed(seed)
    logits = torch.randn(4, 80) * 2
    kept = TopKLogitsWarper(top_k)(None, logits / temperature)
    if top_p < 1.0:
        kept = TopPLogitsWarper(top_p)(None, kept)
    allowed = kept > -torch.inf
    found = torch.zeros_like(allowed)
    for draw in range(60):
        noise = gumbel(torch.arange(4) + 9, torch.full((4,), draw), 0, 1, 80)[:, 0]
        # Flat logits at the sampling temperature would need very many draws: heat the noise.
        codes = choose(logits, noise * 20, *controls(4, temperature, top_k, top_p), 64)
        found[torch.arange(4), codes] = True
    assert not (found & ~allowed).any()
    assert (found.sum(1) >= torch.minimum(allowed.sum(1), torch.tensor(2))).all()


def test_leaving_top_p_out_is_a_top_p_of_one():
    torch.manual_seed(1)
    logits = torch.randn(50, 90)
    noise = gumbel(torch.arange(50), torch.arange(50), 0, 1, 90)[:, 0]
    temperature, top_k, top_p = controls(50, top_k=30)
    with_cut = choose(logits, noise, temperature, top_k, top_p, 64)
    assert torch.equal(with_cut, choose(logits, noise, temperature, top_k, None, 64))


def test_temperature_zero_is_the_argmax_beside_rows_that_sample():
    torch.manual_seed(2)
    logits = torch.randn(6, 90)
    noise = gumbel(torch.arange(6), torch.arange(6), 0, 1, 90)[:, 0]
    temperature = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    codes = choose(logits, noise, temperature, torch.full((6,), 64), None, 64)
    assert torch.equal(codes[::2], logits.argmax(-1)[::2])


@pytest.mark.parametrize("penalty", [1.0, 1.05, 1.7])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    torch.manual_seed(3)
    logits = torch.randn(3, 40)
    history = torch.randint(0, 40, (3, 12))
    seen = torch.zeros(3, 40, dtype=torch.bool).scatter(1, history, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    torch.testing.assert_close(penalise(logits, seen, torch.full((3,), penalty)), expected)
