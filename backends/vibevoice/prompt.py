"""What the language model reads: the checkpoint's own chat template around the text."""

from __future__ import annotations

import re

import torch
from transformers import VibeVoiceProcessor

# A special token in the text would be obeyed: it could not be told from the template's own.
_SPECIAL = re.compile(r"<\|[^|>]*\|>")


def plain(text: str) -> str:
    """``text`` on one line, for another one would be another speaker's, without special tokens."""
    return " ".join(_SPECIAL.sub(" ", text).split())


def token_ids(processor: VibeVoiceProcessor, text: str, voice_frames: int) -> torch.Tensor:
    """[1, tokens] for ``plain`` text; ``voice_frames`` of them stand for the voice of it."""
    content = [{"type": "text", "text": text}]
    if voice_frames:
        content.append({"type": "audio"})
    written = processor.apply_chat_template([{"role": "0", "content": content}], tokenize=False)
    written = written.replace(processor.audio_token, processor.audio_token * voice_frames, 1)
    return processor.tokenizer(written, return_tensors="pt").input_ids
