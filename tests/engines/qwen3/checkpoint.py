"""Writes tiny random Qwen3-TTS checkpoints that load through the package's ``from_pretrained``.

Made from the package's own configuration classes: the same modules, tokenizer rules, prompt tokens
and codec strides as the published ones, at a thousandth of the size.

    python checkpoint.py DIRECTORY custom_voice     one of that kind
    python checkpoint.py DIRECTORY                  all kinds, as ../run wants them
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(root), str(root / "backends" / "qwen3")]

import torch
from qwen3_engine.package import import_package
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BOOK = 64
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
)
PRE_TOKENS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LANGUAGES = (
    "chinese english german italian portuguese spanish japanese korean french russian".split()
)
SPEAKERS = "vivian serena uncle_fu dylan eric ryan aiden ono_anna sohee".split()
DIALECTS = {"dylan": "beijing_dialect", "eric": "sichuan_dialect"}


@dataclass(frozen=True)
class Shape:
    """How large. ``end_gain`` makes the end likelier, so that greedy speech has one.

    ``upsample_rates``: the codec's last stages, 480 samples in all; the published ones by default.
    """

    hidden: int = 64
    layers: int = 2
    groups: int = 16
    projection: bool = True
    end_gain: float = 1.0
    codec_hidden: int = 32
    upsample_rates: tuple[int, ...] = (8, 5, 4, 3)


def write(directory: Path, kind: str, shape: Shape = Shape(), seed: int = 0) -> Path:
    """A checkpoint of ``kind`` (base, custom_voice, voice_design) in ``directory``."""
    import_package()
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    directory.mkdir(parents=True, exist_ok=True)
    ids, vocabulary = _write_tokenizer(directory)
    config = _config(kind, shape, ids, vocabulary)
    model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**config))
    fill(model, seed)
    with torch.no_grad():
        model.talker.codec_head.weight[config["talker_config"]["codec_eos_token_id"]] *= (
            shape.end_gain
        )
    model.save_pretrained(directory, safe_serialization=True)
    # The package does not write its nested configuration back in a form it can read.
    about = {"model_type": "qwen3_tts", "architectures": ["Qwen3TTSForConditionalGeneration"]}
    _json(directory / "config.json", {**config, **about})
    generation = {
        "do_sample": True,
        "repetition_penalty": 1.05,
        "temperature": 0.9,
        "top_p": 1.0,
        "top_k": 50,
    }
    generation |= {f"subtalker_{k}": generation[k] for k in ("temperature", "top_p", "top_k")}
    _json(
        directory / "generation_config.json",
        {**generation, "subtalker_dosample": True, "max_new_tokens": 64},
    )
    _json(directory / "preprocessor_config.json", {"processor_class": "Qwen3TTSProcessor"})
    _write_codec(directory / "speech_tokenizer", shape, seed)
    return directory


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights that keep signals about as large as they were."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point() or "inv_freq" in name or "initialized" in name:
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            noise = torch.randn(tensor.shape, generator=generator)
            last = name.rsplit(".", 1)[-1]
            if "cluster_usage" in name:
                tensor.fill_(1.0)
            elif "embed" in name:
                tensor.copy_(noise)
            elif "norm" in name and last == "weight":
                tensor.copy_(1.0 + 0.2 * noise)
            elif "layer_scale" in name or last == "gamma":
                tensor.fill_(0.2)
            elif tensor.dim() > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(0.05 * noise)


def _config(kind: str, shape: Shape, ids: dict[str, int], vocabulary: int) -> dict[str, Any]:
    # The last 1024 ids of the vocabulary are controls, as in the published models.
    control = dict(
        zip(
            ("pad", "bos", "eos_token", "think", "nothink", "think_bos", "think_eos"),
            range(BOOK, BOOK + 7),
            strict=True,
        )
    )
    languages = {name: BOOK + 16 + at for at, name in enumerate(LANGUAGES)}
    languages |= {"beijing_dialect": BOOK + 40, "sichuan_dialect": BOOK + 41}
    speakers = SPEAKERS if kind == "custom_voice" else []
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    predictor = {
        "vocab_size": BOOK,
        "hidden_size": shape.hidden // 2 if shape.projection else shape.hidden,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_code_groups": shape.groups,
        "max_position_embeddings": 65536,
        "rope_theta": 1_000_000,
        **heads,
    }
    talker = {
        "vocab_size": BOOK + 1024,
        "text_vocab_size": vocabulary,
        "text_hidden_size": shape.hidden,
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_code_groups": shape.groups,
        "max_position_embeddings": 32768,
        "rope_theta": 1_000_000,
        "rope_scaling": {
            "rope_type": "default",
            "type": "default",
            "interleaved": True,
            "mrope_section": [4, 2, 2],
        },
        "spk_id": {name: BOOK + 100 + at for at, name in enumerate(speakers)},
        "spk_is_dialect": {name: DIALECTS.get(name, False) for name in speakers},
        "codec_language_id": languages,
        **{f"codec_{name}_id": value for name, value in control.items()},
        "code_predictor_config": predictor,
        **heads,
    }
    encoder = {
        "mel_dim": 128,
        "enc_dim": shape.hidden,
        "enc_channels": [16, 16, 16, 16, 48],
        "enc_kernel_sizes": [5, 3, 3, 3, 1],
        "enc_dilations": [1, 2, 3, 4, 1],
        "enc_attention_channels": 8,
        "enc_res2net_scale": 2,
        "enc_se_channels": 8,
        "sample_rate": 24000,
    }
    return {
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "1b7" if shape.projection else "0b6",
        "tts_model_type": kind,
        "im_start_token_id": ids["<|im_start|>"],
        "im_end_token_id": ids["<|im_end|>"],
        "tts_pad_token_id": ids["<tts_pad>"],
        "tts_bos_token_id": ids["<tts_text_bos>"],
        "tts_eos_token_id": ids["<tts_text_eod>"],
        "speaker_encoder_config": encoder,
        "talker_config": talker,
    }


def _write_tokenizer(directory: Path) -> tuple[dict[str, int], int]:
    """Byte-level BPE under Qwen2's pre-tokenizer. The prompt is cut by position, so "assistant",
    "user" and the line break must be one token each.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False)
    corpus = ["assistant", "user"] * 500
    corpus += ["the quick brown fox jumps over the lazy dog and then hello world of speech"] * 20
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    _json(directory / "vocab.json", model["vocab"])
    first = len(model["vocab"])
    ids = {name: first + at for at, name in enumerate(SPECIALS)}
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    _json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen3TTSProcessor",
            "add_prefix_space": False,
            "bos_token": None,
            "unk_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "errors": "replace",
            "model_max_length": 131072,
            "split_special_tokens": False,
            "clean_up_tokenization_spaces": False,
            "additional_special_tokens": list(SPECIALS[1:]),
            "added_tokens_decoder": {
                str(number): {"content": name, "special": True, **flags}
                for name, number in ids.items()
            },
        },
    )
    return ids, first + len(SPECIALS)


def _write_codec(directory: Path, shape: Shape, seed: int) -> None:
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model

    directory.mkdir(exist_ok=True)
    config = codec_config(shape)
    model = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**config)).eval()
    fill(model, seed + 1)
    voice, last = model.decoder.decoder, model.decoder.decoder[-1].conv
    with torch.no_grad():
        # Random residual units make a signal grow until its sines lose all precision: tame them.
        for name, tensor in voice.named_parameters():
            if "conv" in name and tensor.dim() > 1:
                tensor.mul_(0.6)
        # Loud enough to hear, and far from clipping: a peak of about 0.4.
        peaks: list[float] = []
        hook = last.register_forward_hook(lambda _m, _x, out: peaks.append(float(out.abs().max())))
        model.decoder(torch.randint(0, BOOK, (1, shape.groups, 24)))
        hook.remove()
        last.weight.mul_(0.4 / peaks[0])
        last.bias.mul_(0.4 / peaks[0])
    model.save_pretrained(directory, safe_serialization=True)
    about = {
        "model_type": "qwen3_tts_tokenizer_12hz",
        "architectures": ["Qwen3TTSTokenizerV2Model"],
    }
    _json(directory / "config.json", {**config, **about})
    _json(
        directory / "preprocessor_config.json",
        {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "sampling_rate": 24000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
        },
    )
    (directory / "generation_config.json").unlink(missing_ok=True)


def codec_config(shape: Shape) -> dict[str, Any]:
    hidden = shape.codec_hidden
    encoder = {
        "hidden_size": 32,
        "num_filters": 4,
        "num_residual_layers": 1,
        "upsampling_ratios": [8, 6, 5, 4],
        "use_causal_conv": True,
        "codebook_size": BOOK,
        "codebook_dim": 16,
        "num_quantizers": shape.groups,
        "vector_quantization_hidden_dimension": 16,
        "num_semantic_quantizers": 1,
        "upsample_groups": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    decoder = {
        "codebook_size": BOOK,
        "codebook_dim": hidden,
        "hidden_size": hidden,
        "latent_dim": hidden,
        "head_dim": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "sliding_window": 72,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": shape.layers,
        "num_quantizers": shape.groups,
        "decoder_dim": 2 * hidden,
        "upsample_rates": list(shape.upsample_rates),
        "upsampling_ratios": [2, 2],
    }
    return {
        "encoder_valid_num_quantizers": shape.groups,
        "encoder_config": encoder,
        "decoder_config": decoder,
    }


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    folder, *kinds = sys.argv[1:]
    if kinds:
        write(Path(folder), kinds[0], Shape(end_gain=1.35))
    else:
        # One line of arguments for `cli.py backends check` each: see ../run.
        for kind in ("custom_voice", "base", "voice_design"):
            model = write(Path(folder, kind), kind, Shape(projection=kind != "base", end_gain=1.35))
            options = f"--option model={model} --option device=cpu --option slots=3"
            print(options, "--segments 9 --cancels 5 --chars 200")
