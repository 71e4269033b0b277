"""What was fused says what it said before: the package's operations, one after another."""

from __future__ import annotations

import random

import pytest
import torch
from driving import Request, engine_of, speak_all
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.frame import Row
from qwen3_engine.package import import_package
from qwen3_engine.sampler import Dice

from bench.qwen3_plain import PlainDice, launches, made_plain, plain_sampling
from voice_worker.backend import Voice

VOICES = {
    "custom_voice": (Voice(speaker="ryan"), Voice(speaker="dylan")),
    "voice_design": (Voice(design="a warm voice"), Voice(design="a deep voice")),
}


def spoken(engine, kind, **params):
    """Turns that join and leave three slots, greedy and sampled ones side by side."""
    requests = [
        Request(
            "hello world of speech and then"[: 8 + 5 * n],
            VOICES[kind][n % 2],
            {"temperature": 0.9 * (n % 2), "top_p": 1.0 - 0.2 * (n % 3), **params},
            seed=n,
        )
        for n in range(5)
    ]
    return [one.pieces for one in speak_all(engine, requests, random.Random(4), max_frames=24)]


@pytest.mark.parametrize("kind", VOICES)
def test_fused_layers_and_sampling_choose_the_codes_of_plain_ones(packages, kind):
    wrapper = packages[kind]
    fused = spoken(engine_of(wrapper, slots=3), kind)
    with plain_sampling():
        plain = spoken(made_plain(engine_of(wrapper, slots=3), wrapper.model), kind)
    assert fused == plain
    assert sum(len(piece) for pieces in fused for piece in pieces.values()) > 60


@pytest.mark.parametrize("kind", ["base", "custom_voice"])
def test_fused_layers_compute_what_plain_ones_do(packages, kind):
    """Hidden states and logits of both transformers, with and without a projection between."""
    model = packages[kind].model
    engines = [engine_of(packages[kind], slots=2) for _ in range(2)]
    made_plain(engines[1], model)
    torch.manual_seed(5)
    talker_in = torch.randn(2, 5, model.config.talker_config.hidden_size)
    positions = torch.arange(5).expand(2, 5)
    found = []
    for engine in engines:
        talker, predictor, slots = engine.parts.talker, engine.parts.predictor, engine.parts.slots
        window = slots.window(torch.tensor([1, 0]), positions, 5)
        hidden = talker.stack.forward(talker_in.clone(), positions, window, window.mask())[:, -1]
        entry = torch.stack((predictor.project(hidden), predictor.first_codes[:2]), 1)
        out = predictor.forward(entry, 0)
        found.append((hidden @ talker.head.T, out @ predictor.heads[0].T, slots.memory))
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.9, 2.0]), st.integers(1, 64)), min_size=1),
    st.none() | st.floats(0.01, 1.0),
    st.integers(5, 200),
)
def test_one_pass_over_the_logits_chooses_what_cut_after_cut_does(seed, rows, top_p, size):
    torch.manual_seed(seed)
    logits = (torch.randn(len(rows), size) * 3).double()
    noise = -torch.log(-torch.log(torch.rand(len(rows), 2 * size).clamp(1e-6, 1 - 1e-6)))
    heats, counts = (torch.tensor(column) for column in zip(*rows, strict=True))
    nucleus = None if top_p is None else torch.full((len(rows),), top_p, dtype=torch.float64)
    given = (heats.double(), counts, nucleus, 64)
    fused, plain = (kind.of(noise.double(), *given) for kind in (Dice, PlainDice))
    for start in (0, size):
        assert torch.equal(fused.choose(logits, start), plain.choose(logits, start))


def test_a_fused_frame_takes_fewer_launches(packages):
    """Launches rule at small batches, and the same operations are counted on any machine."""
    wrapper = packages["custom_voice"]
    rows = [Row(n, 1, 40, 0, 1, n, 7, 50, 0.9, 1.0, 1.05) for n in range(2)]
    fused = engine_of(wrapper, slots=2)
    plain = made_plain(engine_of(wrapper, slots=2), wrapper.model)
    few = launches(lambda: fused.parts.frames.launch(rows))
    with plain_sampling():
        many = launches(lambda: plain.parts.frames.launch(rows))
    assert 100 < few < many


def test_bfloat16_rounds_no_worse_than_the_package_does(checkpoints):
    """Teacher-forced logits against float32 with the same weights: at most 1.1 of its error."""
    path = str(checkpoints["custom_voice"])
    rounded, exact = (
        import_package().Qwen3TTSModel.from_pretrained(path, dtype=torch.bfloat16) for _ in range(2)
    )
    exact.model.talker.float()
    exact.model.speech_tokenizer.model.float()
    torch.manual_seed(6)
    inputs = torch.randn(8, 40, exact.model.config.talker_config.hidden_size).bfloat16()
    positions = torch.arange(40).expand(8, 40)

    def logits(wrapper):
        engine = engine_of(wrapper, slots=8)
        talker, slots = engine.parts.talker, engine.parts.slots
        window = slots.window(torch.arange(8), positions, 40)
        x = inputs.to(talker.head, copy=True)
        return talker.stack.forward(x, positions, window, window.mask()) @ talker.head.T

    package = rounded.model.talker
    with torch.no_grad():
        theirs = package.codec_head(
            package.model(
                inputs_embeds=inputs, position_ids=positions.expand(3, 8, 40), use_cache=False
            ).last_hidden_state
        )
    reference = logits(exact)

    def error(values):
        return float((values.float() - reference).square().mean().sqrt())

    assert 0 < error(logits(rounded)) < 1.1 * error(theirs)
