"""Samples T3's speech tokens one by one: the package's two loops, with a limit and a way out.

The package runs each loop to its end, for 40 s of sound at most, and cannot be told to stop. Here
they are iterators. With torch's generator in the same state they give the same tokens (tested).

Source: ``T3.inference`` and ``T3.inference_turbo`` of chatterbox-tts 0.1.7 (MIT, Resemble AI).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from package import T3, T3Cond
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

TOKENS_PER_SECOND = 25
# Those above are marks; the decoder has no sound for them.
SPEECH_TOKENS = 6561


@dataclass(frozen=True)
class Sampling:
    """``limit``: tokens at most. ``cfg_weight`` and ``min_p`` mean something to classic alone,
    ``top_k`` to Turbo alone.
    """

    temperature: float
    top_p: float
    repetition_penalty: float
    limit: int
    top_k: int = 1000
    min_p: float = 0.05
    cfg_weight: float = 0.5


def turbo(t3: T3, prompt: T3Cond, text: torch.Tensor, sampling: Sampling) -> Iterator[int]:
    """Speech tokens for the text's ids, int64 [1, n]. Ends by itself, or at the limit."""
    choose = LogitsProcessorList(
        [
            TemperatureLogitsWarper(sampling.temperature),
            TopKLogitsWarper(sampling.top_k),
            TopPLogitsWarper(sampling.top_p),
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        ]
    )
    start = t3.hp.start_speech_token * torch.ones_like(text[:, :1])
    embeds, _ = t3.prepare_input_embeds(t3_cond=prompt, text_tokens=text, speech_tokens=start)
    chosen, past = start[:, :0], None
    for _ in range(sampling.limit):
        out = t3.tfmr(inputs_embeds=embeds, past_key_values=past, use_cache=True)
        past = out.past_key_values
        logits = t3.speech_head(out.last_hidden_state[:, -1])
        # The start counts as said until something else is.
        token = _draw(choose(chosen if chosen.numel() else start, logits))
        if (number := int(token)) == t3.hp.stop_speech_token:
            return
        yield number
        chosen = torch.cat([chosen, token], dim=1)
        embeds = t3.speech_emb(token)


def classic(t3: T3, prompt: T3Cond, text: torch.Tensor, sampling: Sampling) -> Iterator[int]:
    """As ``turbo``. With a ``cfg_weight`` every step is also asked without the text, and what the
    text changed is enlarged by it; at 0, which the package cannot do, half the work is saved.
    """
    choose = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
            TemperatureLogitsWarper(sampling.temperature),
            MinPLogitsWarper(sampling.min_p),
            TopPLogitsWarper(sampling.top_p),
        ]
    )
    rows = 2 if sampling.cfg_weight else 1
    text = text.expand(rows, -1)
    start = t3.hp.start_speech_token * torch.ones_like(text[:, :1])
    embeds, _ = t3.prepare_input_embeds(
        t3_cond=prompt,
        text_tokens=text,
        speech_tokens=start,
        cfg_weight=sampling.cfg_weight,
    )
    # The model was trained with two marks of a start: the prompt's, and this one.
    chosen, past = start[:1], None
    embeds = torch.cat([embeds, _embedded(t3, chosen, 0, rows)], dim=1)
    for step in range(sampling.limit):
        out = t3.tfmr(inputs_embeds=embeds, past_key_values=past, use_cache=True)
        past = out.past_key_values
        logits = t3.speech_head(out.last_hidden_state[:, -1])
        if rows == 2:
            logits = logits[:1] + sampling.cfg_weight * (logits[:1] - logits[1:])
        token = _draw(choose(chosen, logits))
        if (number := int(token)) == t3.hp.stop_speech_token:
            return
        yield number
        chosen = torch.cat([chosen, token], dim=1)
        embeds = _embedded(t3, token, step + 1, rows)


def _draw(logits: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)


def _embedded(t3: T3, token: torch.Tensor, position: int, rows: int) -> torch.Tensor:
    embedded = t3.speech_emb(token) + t3.speech_pos_emb.get_fixed_embedding(position)
    return embedded.expand(rows, -1, -1)
