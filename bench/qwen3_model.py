"""Qwen3-TTS at full size with random weights, made on the device: what bench.qwen3_gpu measures.

Speed does not depend on what a model says. The sizes are those of the published checkpoints.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from qwen3_engine.package import import_package
from tokenizers import Tokenizer, models, pre_tokenizers

SPEAKER = "ryan"
SIZES = {"1.7b": (2048, 6144), "0.6b": (1024, 3072)}
CONTROLS = {
    "codec_pad_id": 2148,
    "codec_bos_id": 2149,
    "codec_eos_token_id": 2150,
    "codec_think_id": 2154,
    "codec_nothink_id": 2155,
    "codec_think_bos_id": 2156,
    "codec_think_eos_id": 2157,
}


def make(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """What ``Qwen3TTSModel.from_pretrained`` gives, as far as the engine and generate() go.

    ``size`` is 1.7b, 0.6b or tiny.
    """
    import_package()
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration
    from qwen_tts.core.tokenizer_12hz import configuration_qwen3_tts_tokenizer_v2 as codec_config
    from qwen_tts.core.tokenizer_12hz import modeling_qwen3_tts_tokenizer_v2 as codec_model

    with torch.device("meta"):
        model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**_talker(size)))
        config = codec_config.Qwen3TTSTokenizerV2DecoderConfig(**_codec(size))
        decoder = codec_model.Qwen3TTSTokenizerV2Decoder(config)
    for module in (model, decoder):
        module.to_empty(device=device)
        module.to(dtype).eval()
        _fill(module, device)
    model.load_speech_tokenizer(SimpleNamespace(model=SimpleNamespace(decoder=decoder)))
    tokenizer = SimpleNamespace(backend_tokenizer=_tokenizer())
    return SimpleNamespace(
        model=model,
        processor=SimpleNamespace(tokenizer=tokenizer),
        generate_defaults={"temperature": 0.9, "top_k": 50},
    )


def _talker(size: str) -> dict[str, Any]:
    is_tiny = size == "tiny"
    hidden, inner = (64, 128) if is_tiny else SIZES[size]
    heads = {
        "num_attention_heads": 4 if is_tiny else 16,
        "num_key_value_heads": 2 if is_tiny else 8,
        "head_dim": 16 if is_tiny else 128,
    }
    sections = [4, 2, 2] if is_tiny else [24, 20, 20]
    predictor = {
        "vocab_size": 2048,
        "hidden_size": 32 if is_tiny else 1024,
        "intermediate_size": 64 if is_tiny else 3072,
        "num_hidden_layers": 1 if is_tiny else 5,
        "num_code_groups": 16,
        "rope_theta": 1_000_000,
        **heads,
    }
    talker = {
        "vocab_size": 3072,
        "text_vocab_size": 512 if is_tiny else 151_936,
        "text_hidden_size": 64 if is_tiny else 2048,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 2 if is_tiny else 28,
        "num_code_groups": 16,
        "rope_theta": 1_000_000,
        "rope_scaling": {"rope_type": "default", "interleaved": True, "mrope_section": sections},
        "spk_id": {SPEAKER: 3061},
        "spk_is_dialect": {SPEAKER: False},
        "codec_language_id": {"english": 2050, "chinese": 2055},
        "code_predictor_config": predictor,
        **CONTROLS,
        **heads,
    }
    special = 500 if is_tiny else 151_671
    return {
        "talker_config": talker,
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "1b7",
        "tts_model_type": "custom_voice",
        "im_start_token_id": special - 2,
        "im_end_token_id": special - 1,
        "tts_pad_token_id": special,
        "tts_bos_token_id": special + 1,
        "tts_eos_token_id": special + 2,
    }


def _codec(size: str) -> dict[str, Any]:
    if size == "tiny":
        return {
            **dict.fromkeys(("codebook_dim", "hidden_size", "latent_dim"), 32),
            **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), 2),
            "head_dim": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "decoder_dim": 64,
        }
    # 114 M parameters, of which the convolutions after the transformer are the most.
    return {
        "codebook_dim": 512,
        "hidden_size": 512,
        "latent_dim": 1024,
        "head_dim": 64,
        "intermediate_size": 1024,
    }


@torch.no_grad()
def _fill(module: torch.nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    for name, tensor in module.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if ("norm" in name and last == "weight") or "cluster_usage" in name:
            tensor.fill_(1.0)
        elif tensor.dim() > 1 and "embed" not in name:
            tensor.normal_(0, 0.6 / tensor[0].numel() ** 0.5, generator=generator)
        elif tensor.dim() > 1:
            tensor.normal_(0, 1.0, generator=generator)
        else:
            tensor.fill_(0.1 if "scale" in name or last == "gamma" else 0.0)
    # to_empty() leaves what is computed, not loaded, undefined: make the rotary tables again.
    for part in module.modules():
        if hasattr(part, "rope_init_fn"):
            frequencies, part.attention_scaling = part.rope_init_fn(part.config, device)
            part.inv_freq = part.original_inv_freq = frequencies


def _tokenizer() -> Tokenizer:
    """A token a byte: the text is of no interest, only how many tokens it has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "assistant", "user"]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = []
    for word in ("assistant", "user"):
        for end in range(2, len(word) + 1):
            vocabulary.setdefault(word[:end], len(vocabulary))
            merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
