"""The package's generation in one thread: a step of the language model, then its frame, decoded.

``TTSModel.generate_audio_stream`` does the same with two threads of its own. They race for one
core, run ahead of the listener without bound, and are still at work when a job was cancelled. This
makes the same samples (tests/engines/pocket_tts/test_speech.py), and stops where it stands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from pocket_tts import TTSModel
from pocket_tts.default_parameters import MAX_TOKEN_PER_CHUNK
from pocket_tts.models.text_chunking import prepare_text_prompt, split_into_best_sentences
from pocket_tts.modules.stateful_module import ModelState, increment_steps, init_states

FADE_IN = 0.005  # seconds; a fresh decoder begins with a small step


def speak(
    model: TTSModel, voice: ModelState, text: str, seed: int, temperature: float | None = None
) -> Iterator[np.ndarray]:
    """Frames of 80 ms, float32. ``voice`` is not changed. A text without a letter has no sound."""
    config = model.config
    model.temp = config.default_temperature if temperature is None else temperature
    torch.manual_seed(seed)
    rules = {
        "pad_with_spaces_for_short_inputs": model.pad_with_spaces_for_short_inputs,
        "remove_semicolons": model.remove_semicolons,
        "append_terminal_punctuation": model.append_terminal_punctuation,
        "capitalize_first_letter": model.capitalize_first_letter,
        "replace_characters": model.replace_characters,
    }
    if not any(map(str.isalnum, text)):
        return
    tokenizer = model.flow_lm.conditioner.tokenizer
    for sentence in split_into_best_sentences(tokenizer, text, MAX_TOKEN_PER_CHUNK, **rules):
        if not any(map(str.isalnum, sentence)):
            continue
        prompt, tail = prepare_text_prompt(sentence, **rules)
        if model.model_recommended_frames_after_eos is not None:
            yield from _frames(model, voice, prompt, model.model_recommended_frames_after_eos)
        else:
            yield from _frames(model, voice, prompt, tail + 2)


@torch.no_grad()
def _frames(model: TTSModel, voice: ModelState, text: str, tail: int) -> Iterator[np.ndarray]:
    """One sentence; ``tail`` frames follow the one in which the model says that it is over."""
    flow, mimi = model.flow_lm, model.mimi
    state = copy.deepcopy(voice)
    tokens = flow.conditioner.prepare(text)
    longest = model._estimate_max_gen_len(tokens.shape[1])
    used = model._flow_lm_current_end(state) + tokens.shape[1]
    model._expand_kv_cache(state, sequence_length=used + longest)
    model._run_flow_lm_and_increment_step(model_state=state, text_tokens=tokens)
    steps = int(mimi.encoder_frame_rate / mimi.frame_rate)
    decoding = init_states(mimi, batch_size=1, sequence_length=longest * steps)
    # NaN stands for the beginning of speech.
    latent = torch.full((1, 1, flow.ldim), torch.nan, device=model.device, dtype=flow.dtype)
    end: int | None = None
    for count in range(longest):
        latent, is_over = model._run_flow_lm_and_increment_step(
            model_state=state, backbone_input_latents=latent
        )
        if end is None and count >= model._MIN_FRAMES_BEFORE_EOS and is_over.item():
            end = count
        if end is not None and count >= end + tail:
            return
        sound = mimi.decode_from_latent(latent * flow.emb_std + flow.emb_mean, decoding)[0, 0]
        increment_steps(mimi, decoding, increment=steps)
        if count == 0:
            fade = torch.linspace(0, 1, int(model.sample_rate * FADE_IN)).to(sound)
            sound[: len(fade)] *= fade
        yield sound.float().cpu().numpy()
