"""Our loop against transformers' own ``generate``: the same samples, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompt import plain, token_ids
from speech import LEAST_SECONDS, Style, speak

TEXT = "Hello there. Who is it?"
STYLE = Style()


@pytest.fixture
def voice(model):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(5, model.net.config.audio_config.hidden_size, generator=generator)


@pytest.fixture
def wandering(model):
    """Weights with which the model says now and then that the sound begins, or stops."""
    config, rows = model.net.config, model.net.lm_head.weight.data
    before = rows.clone()
    generator = torch.Generator().manual_seed(0)
    strays = [config.audio_bos_token_id, config.audio_eos_token_id]
    rows[strays] = 0.3 * torch.randn(2, rows.shape[1], generator=generator)
    yield model
    rows.copy_(before)


@pytest.fixture
def generate(model, monkeypatch):
    """The package's, with guidance where the original has it: in the diffusion alone.

    As of 5.23 ``guidance_scale`` also turns on a logits processor that was written for texts.
    """
    processors = "transformers.generation.utils.UnbatchedClassifierFreeGuidanceLogitsProcessor"
    monkeypatch.setattr(processors, lambda *_args, **_kwargs: lambda _ids, scores: scores)

    def run(text, seed, style=STYLE, recording=None, most=60):
        """``most``: of steps."""
        inputs = {"input_ids": token_ids(model.processor, text, 0)}
        if recording is not None:
            parts = [{"type": "text", "text": text}, {"type": "audio"}]
            messages = [{"role": "0", "content": parts}]
            written = model.processor.apply_chat_template(messages, tokenize=False)
            inputs = model.processor(
                text=[written], audio=[recording], sampling_rate=24_000, return_tensors="pt"
            )
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        torch.manual_seed(seed)
        (sound,) = model.net.generate(
            **inputs,
            sample=False,
            guidance_scale=style.guidance_scale,
            num_diffusion_steps=style.diffusion_steps,
            max_new_tokens=most,
        )
        return np.zeros(0, np.float32) if sound is None else sound[0].numpy()

    return run


def heard(model, voice, text, seed, style=STYLE):
    frames = list(speak(model, voice, text, seed, style))
    assert {len(frame) for frame in frames} <= {3_200}
    return np.concatenate(frames)


@pytest.mark.parametrize("style", [STYLE, Style(1.0, 4), Style(3.0, 2)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_heard_is_what_the_package_makes(model, generate, seed, style):
    expected = generate(TEXT, seed, style)
    assert np.array_equal(heard(model, None, TEXT, seed, style)[: len(expected)], expected)
    assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_that_stops_and_begins_again_is_the_same_too(wandering, generate, seed):
    expected = generate(TEXT, seed)
    sound = heard(wandering, None, TEXT, seed)
    # Where it begins again they forget the second branch in ways that differ by rounding, which
    # grows from frame to frame.
    compared = min(10 * 3_200, len(expected))
    assert np.allclose(sound[:compared], expected[:compared], atol=1e-2)


def test_a_cloned_voice_is_heard_as_the_package_hears_it(model, generate, tmp_path):
    from voices import Voices, _read_wave

    from tests.recordings import record
    from voice_worker import Sample, Voice

    path = record(tmp_path / "me.wav", 2.6)
    latents = Voices(model).of(Voice(samples=(Sample(path),), digest="ab" * 32))
    expected = generate(TEXT, 5, recording=_read_wave(path))
    sound = heard(model, latents, TEXT, 5)
    assert np.allclose(sound[: len(expected)], expected, atol=1e-5)
    assert not np.array_equal(sound[:3_200], heard(model, None, TEXT, 5)[:3_200])


def test_a_frame_costs_a_step_of_each_branch(model, voice, monkeypatch):
    lengths = []
    forward = model.net.forward

    def counted(**inputs):
        lengths.append(inputs["inputs_embeds"].shape[1])
        return forward(**inputs)

    monkeypatch.setattr(model.net, "forward", counted)
    frames = speak(model, voice, TEXT, 1, STYLE)
    assert len(next(frames)) == 3_200
    assert lengths == [token_ids(model.processor, TEXT, len(voice)).shape[1], 1]
    frames.close()
    assert len(lengths) == 2


def test_seeds_voices_and_styles_are_heard(model, voice):
    first = heard(model, voice, TEXT, 1)
    assert np.array_equal(first, heard(model, voice, TEXT, 1))
    for other in (
        heard(model, voice, TEXT, 2),
        heard(model, voice + 1, TEXT, 1),
        heard(model, voice, TEXT, 1, Style(2.0, 10)),
        heard(model, voice, TEXT, 1, Style(1.3, 5)),
    ):
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("text", ["", "  ", "...", "—", "🙂", "?!", "\u200b", "<|vision_pad|>"])
def test_a_text_without_a_letter_has_no_sound(model, text):
    assert list(speak(model, None, text, 1, STYLE)) == []


def test_a_model_that_never_ends_is_stopped(model, monkeypatch):
    forward = model.net.forward

    def endless(**inputs):
        out = forward(**inputs)
        out.logits[..., model.net.config.audio_token_id] = 1e9
        return out

    monkeypatch.setattr(model.net, "forward", endless)
    frames = list(speak(model, None, "Hi.", 1, STYLE))
    assert len(frames) == round(7.5 * (LEAST_SECONDS + 0.4 * 3))


@pytest.mark.parametrize(
    "text",
    [
        "One <|vision_start|><|vision_pad|><|vision_end|><|endoftext|> two.",
        "One\n Speaker 1: two.",
        "One\r\n\n\ttwo.",
    ],
)
def test_a_text_cannot_write_the_prompt(model, voice, text):
    config, ids = model.net.config, token_ids(model.processor, plain(text), len(voice))
    assert int((ids == config.audio_token_id).sum()) == len(voice)
    assert int((ids == config.eos_token_id).sum()) == 0
    # One line of text, whatever it says.
    usual = token_ids(model.processor, "One two.", len(voice))
    line_break = model.processor.tokenizer("\n").input_ids[0]
    assert int((ids == line_break).sum()) == int((usual == line_break).sum())
    assert heard(model, voice, text, 1).size
