"""transformers' generation as one loop that yields: a step of the language model, then its frame.

``VibeVoiceForConditionalGeneration.generate`` gives its sound at the end, and cannot be stopped
before. This makes the same samples (tests/engines/vibevoice/test_speech.py), frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from model import Model
from prompt import plain, token_ids
from transformers import DynamicCache

FRAME_SECONDS = 3_200 / 24_000
# Nobody speaks more slowly. A model that has lost its way would babble until its context is full.
SECONDS_PER_CHARACTER, LEAST_SECONDS = 0.4, 5.0


@dataclass(frozen=True)
class Style:
    """``guidance_scale``: how closely it follows the text and the voice; 1 not especially.
    ``diffusion_steps``: work for each frame.
    """

    guidance_scale: float = 1.3
    diffusion_steps: int = 10


def speak(
    model: Model, voice: torch.Tensor | None, text: str, seed: int, style: Style
) -> Iterator[np.ndarray]:
    """Frames of 133 ms, float32 at 24 kHz. A text without a letter or digit has no sound.

    ``voice``: what the model heard of the speaker, [frames, latent]; None lets it invent one.
    """
    text = plain(text)
    if not any(map(str.isalnum, text)):
        return
    ids = token_ids(model.processor, text, 0 if voice is None else len(voice))
    longest = LEAST_SECONDS + SECONDS_PER_CHARACTER * len(text)
    torch.manual_seed(seed)
    yield from _frames(model.net, ids, voice, style, round(longest / FRAME_SECONDS))


@torch.no_grad()
def _frames(net, ids: torch.Tensor, voice, style: Style, most: int) -> Iterator[np.ndarray]:
    """``ids``: [1, tokens], with an ``audio_token_id`` for each frame of the voice."""
    config, core, embed = net.config, net.model, net.get_input_embeddings()
    begin, end, frame = config.audio_bos_token_id, config.eos_token_id, config.audio_token_id
    able = torch.tensor(sorted({begin, config.audio_eos_token_id, frame, end}), device=net.device)
    scheduler = net._build_default_noise_scheduler(net.generation_config)
    given = embed(ids.to(net.device))
    if voice is not None:
        heard = core.multi_modal_projector(voice.to(given))
        given = given.masked_scatter((ids == frame)[..., None].to(given.device), heard)
    # Guidance compares with what the model would say without a text: a branch that hears the same
    # sound, and nothing before it.
    context, blank = (DynamicCache(config=config.text_config) for _ in range(2))
    acoustic = semantic = None
    everything = torch.ones(1, dtype=torch.bool, device=net.device)
    for _ in range(most):
        out = net(inputs_embeds=given, past_key_values=context, use_cache=True, logits_to_keep=1)
        token = able[out.logits[0, -1, able].argmax()]
        last, given = given[:, -1:], embed(token)[None, None]
        if token == end:
            return
        if token == begin:
            blank = DynamicCache(config=config.text_config)
        if token != frame:
            continue
        without = net(inputs_embeds=last, past_key_values=blank, use_cache=True, logits_to_keep=1)
        latent = net._sample_audio_latent(
            out.last_hidden_state[:, -1],
            without.last_hidden_state[:, -1],
            scheduler,
            style.diffusion_steps,
            style.guidance_scale,
        )
        sound = net._decode_audio_latent(latent, everything, 1, acoustic)
        meaning = core.semantic_tokenizer_encoder(
            sound.audio, padding_cache=semantic, use_cache=True
        )
        acoustic, semantic = sound.padding_cache, meaning.padding_cache
        given = core.multi_modal_projector(latent) + core.semantic_connector(meaning.latents)
        yield sound.audio[0, 0].float().cpu().numpy()
