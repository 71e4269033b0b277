"""Speech tokens: those of the package, with a limit, an end, and a way out between any two."""

from __future__ import annotations

import itertools

import pytest
import torch
from conditioning import Conditionings
from package import T3
from sampling import Sampling, classic, turbo

from voice_worker.backend import Sample, Voice

SAMPLING = Sampling(temperature=0.8, top_p=0.95, repetition_penalty=1.2, limit=60)
CLASSIC = Sampling(temperature=0.8, top_p=1.0, repetition_penalty=1.2, limit=40)


@pytest.fixture(scope="module")
def prompts(models, recording):
    voice = Voice(samples=(Sample(recording),), digest="a" * 64)
    return {kind: Conditionings(model).of(voice) for kind, model in models.items()}


def turbo_ids(model):
    return model.tokenizer("Hello [laugh] there.", return_tensors="pt").input_ids


def classic_ids(model):
    ids = model.tokenizer.text_to_tokens("Hello there.")
    return torch.nn.functional.pad(torch.nn.functional.pad(ids, (1, 0), value=255), (0, 1), value=0)


def drawn(sample, *arguments, seed=3):
    torch.manual_seed(seed)
    with torch.inference_mode():
        return list(sample(*arguments))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_turbo_draws_what_the_package_draws(models, prompts, seed):
    model, prompt = models["turbo"], prompts["turbo"]
    torch.manual_seed(seed)
    theirs = model.t3.inference_turbo(prompt.for_t3(0.0), turbo_ids(model), max_gen_len=59)
    ours = drawn(turbo, model.t3, prompt.for_t3(0.0), turbo_ids(model), SAMPLING, seed=seed)
    assert ours == theirs[0].tolist()
    assert ours


def test_turbo_ends_at_the_mark_of_an_end_and_does_not_yield_it(models, prompts):
    model, prompt = models["turbo"], prompts["turbo"]
    lengths = {
        len(drawn(turbo, model.t3, prompt.for_t3(0.0), turbo_ids(model), SAMPLING, seed=seed))
        for seed in range(12)
    }
    assert min(lengths) < SAMPLING.limit, "with these weights one token in fifty is the end"


@pytest.mark.parametrize(("cfg_weight", "exaggeration"), [(0.5, 0.5), (1.0, 1.2)])
def test_classic_draws_what_the_package_draws(models, prompts, cfg_weight, exaggeration):
    model, prompt = models["classic"], prompts["classic"]
    ids = classic_ids(model)
    torch.manual_seed(3)
    theirs = model.t3.inference(
        t3_cond=prompt.for_t3(exaggeration),
        text_tokens=torch.cat([ids, ids]),
        max_new_tokens=CLASSIC.limit,
        top_p=1.0,
        cfg_weight=cfg_weight,
    )
    sampling = Sampling(0.8, 1.0, 1.2, CLASSIC.limit, cfg_weight=cfg_weight)
    ours = drawn(classic, model.t3, prompt.for_t3(exaggeration), ids, sampling)
    theirs = theirs[0].tolist()
    assert ours == theirs[: theirs.index(6562) if 6562 in theirs else None]


def test_exaggeration_reaches_classic_and_says_nothing_to_turbo(models, prompts):
    heard = {}
    with torch.inference_mode():
        for kind, model in models.items():
            calm, wild = (
                model.t3.prepare_conditioning(prompts[kind].for_t3(amount)) for amount in (0.0, 2.0)
            )
            heard[kind] = not torch.equal(calm, wild)
    assert heard == {"turbo": False, "classic": True}


def test_without_guidance_classic_does_half_the_work_and_speaks(models, prompts):
    model, prompt = models["classic"], prompts["classic"]
    ids, rows = classic_ids(model), []
    handle = model.t3.tfmr.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    sampling = Sampling(0.8, 1.0, 1.2, 10, cfg_weight=0.0)
    tokens = drawn(classic, model.t3, prompt.for_t3(0.5), ids, sampling)
    handle.remove()
    assert tokens
    assert set(rows) == {1}


@pytest.mark.parametrize("limit", [1, 7])
def test_the_limit_holds_and_what_is_not_drawn_costs_nothing(models, prompts, limit):
    model, prompt = models["classic"], prompts["classic"]
    sampling = Sampling(0.8, 1.0, 1.2, limit)
    assert len(drawn(classic, model.t3, prompt.for_t3(0.5), classic_ids(model), sampling)) == limit
    steps = []
    handle = model.t3.tfmr.register_forward_hook(lambda *_: steps.append(1))
    torch.manual_seed(3)
    with torch.inference_mode():
        tokens = classic(model.t3, prompt.for_t3(0.5), classic_ids(model), CLASSIC)
        assert len(list(itertools.islice(tokens, 3))) == 3
    handle.remove()
    assert len(steps) == 3


def test_the_package_still_hides_its_limit():
    """When it no longer does, sampling.py can go."""
    import inspect

    from package import ChatterboxTurboTTS

    assert "max_gen_len" in inspect.signature(T3.inference_turbo).parameters
    assert "max_gen_len" not in inspect.signature(ChatterboxTurboTTS.generate).parameters
