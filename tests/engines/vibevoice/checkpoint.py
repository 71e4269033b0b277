"""Writes random VibeVoice checkpoints that load through transformers' ``from_pretrained``.

Made of its own configuration, model and processor classes: the published models' frames, tokens
and layout, at a thousandth of the size; or at the full one, to measure.

    python checkpoint.py FOLDER [--full]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    Qwen2Config,
    VibeVoiceAcousticTokenizerConfig,
    VibeVoiceAcousticTokenizerEncoderConfig,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceConfig,
    VibeVoiceDiffusionHeadConfig,
    VibeVoiceForConditionalGeneration,
    VibeVoiceProcessor,
)
from transformers.models.qwen2 import Qwen2Tokenizer

END, BEGIN, STOP, FRAME = "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
# As the published one: the voices first, then who says what, then the token that begins the sound.
TEMPLATE = """Speak.
{% set voices = namespace(roles=[]) %}
{% for message in messages %}
{% for part in message.content if part.type == "audio" and message.role not in voices.roles %}
{% set voices.roles = voices.roles + [message.role] %}
{% endfor %}
{% endfor %}
{% for role in voices.roles %}
 Speaker {{ role }}:<|vision_start|><|vision_pad|><|vision_end|>
{% endfor %}
{% for message in messages %}
{% for part in message.content if part.type == "text" %}
 Speaker {{ message.role }}: {{ part.text }}
{% endfor %}
{% endfor %}
 Speech output:
<|vision_start|>"""
FULL = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
FULL |= {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1}
ENDING = 10.0  # the more, the sooner it ends


def write(folder: Path, *, is_full: bool = False) -> Path:
    """A checkpoint in ``folder``, as ``hf download`` leaves it."""
    tokenizer = _tokenizer()
    size = 151_936 if is_full else len(tokenizer)
    text = Qwen2Config(**(FULL if is_full else SMALL), vocab_size=size, rope_theta=1e6)
    sound = {} if is_full else {"num_filters": 2, "depths": [1] * 7, "hidden_size": 8}
    meaning = sound | {"hidden_size": 128 if is_full else 8}
    head = {} if is_full else {"intermediate_size": 64, "num_hidden_layers": 1}
    special = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in [
            *(("pad_token_id", END), ("eos_token_id", END), ("audio_bos_token_id", BEGIN)),
            *(("audio_eos_token_id", STOP), ("audio_token_id", FRAME)),
        ]
    }
    config = VibeVoiceConfig(
        text_config=text,
        audio_config=VibeVoiceAcousticTokenizerConfig(**sound),
        semantic_model_config=VibeVoiceAcousticTokenizerEncoderConfig(**meaning),
        diffusion_head_config=VibeVoiceDiffusionHeadConfig(**head),
        **special,
    )
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16 if is_full else torch.float32)
    model = VibeVoiceForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    fill(model, is_full)
    model.generation_config = GenerationConfig(
        **{name: special[name] for name in ("pad_token_id", "eos_token_id")}, guidance_scale=1.3
    )
    model.save_pretrained(folder)
    extractor = VibeVoiceAcousticTokenizerFeatureExtractor()
    VibeVoiceProcessor(extractor, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


@torch.no_grad()
def fill(model: VibeVoiceForConditionalGeneration, is_full: bool) -> None:
    """Layers that matter, speech that ends, and sound that is neither silent nor too loud."""
    generator = torch.Generator().manual_seed(2)
    if not is_full:
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif name.endswith("gamma"):
                tensor.fill_(0.5)
        # Every state has this in common, and with it comes another frame; what differs brings the
        # end, now and then, but not before the first frame.
        attention = model.model.language_model.layers[-1].self_attn
        bias = attention.v_proj.bias
        bias.copy_(0.5 * torch.randn(bias.shape, generator=generator))
        heads = model.config.text_config.num_attention_heads
        common = attention.o_proj.weight @ bias.repeat(heads)
        config, rows = model.config, model.lm_head.weight
        ids = torch.randint(len(rows), (1, 200), generator=generator)
        ids[0, -1] = config.audio_bos_token_id
        first = model.model(input_ids=ids).last_hidden_state[0, -1]
        rows[config.audio_token_id] = common / common.norm()
        rows[config.eos_token_id] *= -ENDING * torch.sign(rows[config.eos_token_id] @ first)
        rows[[config.audio_bos_token_id, config.audio_eos_token_id]] = 0
    latents = torch.randn(1, 20, model.config.audio_config.hidden_size, generator=generator)
    sound = model.model.audio_tower.decode(latents.to(model.dtype)).audio
    for tensor in model.model.audio_tower.decoder.head.parameters():
        tensor.mul_(0.3 / float(sound.abs().max()))


def _tokenizer() -> Qwen2Tokenizer:
    """One token for each byte: the published one's alphabet, without what it has learnt."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: count for count, byte in enumerate(alphabet)}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=END)
    made.add_special_tokens({"additional_special_tokens": [BEGIN, STOP, FRAME]})
    return made


if __name__ == "__main__":
    write(Path(sys.argv[1]), is_full="--full" in sys.argv)
    print(
        f"--option model={sys.argv[1]} --option diffusion_steps=2 --segments 40 --cancels 6 --chars 400"
    )
