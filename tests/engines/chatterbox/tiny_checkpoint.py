"""Writes small random Chatterbox checkpoints that load through the package's ``from_local``.

python tiny_checkpoint.py FOLDER turbo|classic
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(root), str(root / "backends" / "chatterbox")]

import shrink  # noqa: F401
import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3.modules.t3_config import T3Config
from chatterbox.models.voice_encoder import VoiceEncoder
from package import T3, ChatterboxTurboTTS
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.recordings import record

# As in the published tokenizer, in its order.
BRACKETED = (
    "angry,fear,surprised,whispering,advertisement,dramatic,narration,crying,happy,sarcastic,"
    "clear throat,sigh,shush,cough,groan,sniff,gasp,chuckle,laugh"
).split(",")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-"


def write(folder: Path, kind: str, *, ends: float = 3.0) -> Path:
    """Turbo has a voice of its own, classic has none. ``ends``: how much likelier than another
    token the end is, as a logit; Turbo only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    _save(VoiceEncoder(), folder / "ve.safetensors")
    if kind == "turbo":
        t3 = T3(turbo_config())
        with torch.no_grad():
            t3.speech_head.bias[t3.hp.stop_speech_token] += ends
        _save(t3, folder / "t3_turbo_v1.safetensors")
        _save(S3Gen(meanflow=True), folder / "s3gen_meanflow.safetensors")
        _write_turbo_tokenizer(folder)
        model = ChatterboxTurboTTS.from_local(folder, "cpu")
        model.prepare_conditionals(record(folder / "own.wav", 6.0, pitch=150), norm_loudness=False)
        model.conds.save(folder / "conds.pt")
    else:
        _save(T3(), folder / "t3_cfg.safetensors")
        _save(S3Gen(), folder / "s3gen.safetensors")
        _write_classic_tokenizer(folder)
    return folder


def turbo_config() -> T3Config:
    """What ``ChatterboxTurboTTS.from_local`` builds."""
    config = T3Config(text_tokens_dict_size=50276)
    config.llama_config_name = "GPT2_medium"
    config.speech_tokens_dict_size = 6563
    config.input_pos_emb = None
    config.speech_cond_prompt_len = 375
    config.use_perceiver_resampler = False
    config.emotion_adv = False
    return config


def _save(module: torch.nn.Module, path: Path) -> None:
    tensors = module.state_dict().items()
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors}, path)


def _write_turbo_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["hello world this is a test"] * 50, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    size, end = len(model["vocab"]), model["vocab"]["<|endoftext|>"]
    added = {f"[{name}]": size + at for at, name in enumerate(BRACKETED)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    plain = {"lstrip": False, "rstrip": False, "single_word": False}
    about = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 1024,
        "added_tokens_decoder": {
            str(end): {"content": "<|endoftext|>", "normalized": False, "special": True, **plain},
            **{
                str(number): {"content": name, "normalized": True, "special": False, **plain}
                for name, number in added.items()
            },
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def _write_classic_tokenizer(folder: Path) -> None:
    known = ["[STOP]", "[UNK]", "[SPACE]", *LETTERS]
    vocabulary = {name: at for at, name in enumerate(known)}
    vocabulary |= {f"<{at}>": at for at in range(len(known), 255)} | {"[START]": 255}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["[SPACE]", "[START]", "[STOP]"])
    tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
