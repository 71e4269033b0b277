"""Our loop against the package's own: the same samples, sooner, and nothing left running."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from speech import speak

from voice_worker import Voice

TEXTS = [
    "Hello.",
    "hello there, who is it",
    "One sentence. Another one, which is a little longer! And a third?",
    "A sentence far too long for one piece, which goes on, and on; and on: and on, to be cut.",
]


@pytest.fixture
def voice(english):
    return english.voices.of(Voice())


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_heard_is_what_the_package_makes(english, voice, text):
    model = english.model
    # Otherwise the package's decoder takes as many frames at once as are waiting.
    model.max_decoder_frames_per_call = 1
    model.temp = model.config.default_temperature
    torch.manual_seed(5)
    expected = model.generate_audio(voice, text).numpy()
    frames = list(speak(model, voice, text, seed=5))
    assert np.array_equal(np.concatenate(frames), expected)
    assert {len(frame) for frame in frames} == {1920}
    assert np.abs(expected).max() > 0.01


def test_the_first_frame_costs_one_step_of_the_model(english, voice, monkeypatch):
    steps = []
    run = english.model._run_flow_lm_and_increment_step

    def counted(**inputs):
        steps.append(sorted(inputs))
        return run(**inputs)

    monkeypatch.setattr(english.model, "_run_flow_lm_and_increment_step", counted)
    frames = speak(english.model, voice, TEXTS[2], seed=1)
    assert len(next(frames)) == 1920
    assert steps == [["model_state", "text_tokens"], ["backbone_input_latents", "model_state"]]
    frames.close()
    assert len(steps) == 2


def test_a_voice_is_not_changed_by_speaking(english, voice):
    before = copy.deepcopy(voice)
    list(speak(english.model, voice, TEXTS[2], seed=1))
    for name, part in voice.items():
        for key, tensor in part.items():
            assert torch.equal(tensor, before[name][key])


def test_seeds_and_temperatures_are_heard(english, voice):
    def sound(seed, temperature=None):
        return np.concatenate(list(speak(english.model, voice, "Hello.", seed, temperature)))

    assert np.array_equal(sound(1), sound(1))
    assert not np.array_equal(sound(1), sound(2))
    assert not np.array_equal(sound(1), sound(1, 1.5))
    assert np.array_equal(sound(1, 0.0), sound(2, 0.0)), "nothing is left to chance"


@pytest.mark.parametrize("text", ["", "  ", "...", "—", "🙂", "?!", "\u200b", '"'])
def test_a_text_without_a_letter_has_no_sound(english, voice, text):
    assert list(speak(english.model, voice, text, seed=1)) == []
