"""Writes random Pocket TTS checkpoints that load through the package's ``TTSModel.load_model``.

Made from the package's own configuration: the same modules, tokenizer rules and frame sizes as the
published models, at a thousandth of the size; or at the full one, to measure.

    python checkpoint.py FOLDER [english german …] [--full]
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import torch
from pocket_tts import TTSModel, export_model_state
from pocket_tts.modules.stateful_module import init_states
from pocket_tts.utils.config import CONFIGS_DIR, Config, load_config
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers import decoders as token_decoders

TEXT = "The quick brown fox jumps over the lazy dog, and then: hello world of speech; 3.5!...?"
VOICES = {"english": ("alba", "marius"), "german": ("juergen", "alba")}


def write(
    folder: Path, name: str = "english", *, is_full: bool = False, clones: bool = True
) -> Path:
    """``folder``/languages/``name``, laid out as the hub's repository is."""
    home = folder / "languages" / name
    (home / "embeddings").mkdir(parents=True, exist_ok=True)
    config = load_config(CONFIGS_DIR / f"{name}.yaml")
    bins = _write_tokenizer(home / "tokenizer.json", config.flow_lm.lookup_table.n_bins, is_full)
    if not is_full:
        config = _reduced(config, bins)
    local = config.model_copy(deep=True)
    local.weights_path = local.weights_path_without_voice_cloning = None
    local.flow_lm.lookup_table.tokenizer_path = str(home / "tokenizer.json")
    unfilled = home / "unfilled.yaml"
    unfilled.write_text(local.model_dump_json(), "utf-8")
    model = TTSModel.load_model(config=unfilled)
    unfilled.unlink()
    fill(model, name, clones)
    save_file(model.state_dict(), home / "model.safetensors")
    # The folder's own configuration stands in for the package's, which is of the full size.
    if not is_full:
        (home / "config.yaml").write_text(config.model_dump_json(), "utf-8")
    for count, voice in enumerate(VOICES.get(name, ("alba",))):
        export_model_state(_heard(model, count), home / "embeddings" / f"{voice}.safetensors")
    return folder


def fill(model: TTSModel, of: str, clones: bool = True) -> None:
    """Random weights that keep signals about as large as they were, and speech that ends."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=_generator(f"{of} {name}"))
            if "norm" in name and name.endswith("weight"):
                tensor.copy_(1.0 + 0.1 * noise)
            elif tensor.dim() > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(0.02 * noise)
        # Half of all frames could be the last one.
        model.flow_lm.out_eos.bias.fill_(model.config.default_eos_threshold)
        sounds = model.mimi.decode_from_latent(
            torch.randn(1, 8, model.flow_lm.ldim, generator=_generator("sound")),
            init_states(model.mimi, batch_size=1, sequence_length=400),
        )
        last = list(model.mimi.decoder.parameters())[-2:]
        for tensor in last:
            tensor.mul_(0.3 / float(sounds.abs().max()))
        if not clones:
            for tensor in model.mimi.encoder.parameters():
                tensor.zero_()


def _heard(model: TTSModel, seed: int):
    """The state of a voice that was made with the package, as the published ones were."""
    length = model.config.mimi.sample_rate * 2
    time = torch.arange(length) / model.config.mimi.sample_rate
    sound = 0.3 * torch.sin(2 * torch.pi * (120 + 60 * seed) * time)
    return model.get_state_for_audio_prompt(sound[None])


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def _reduced(config: Config, bins: int) -> Config:
    made = config.model_copy(deep=True)
    flow, mimi = made.flow_lm, made.mimi
    flow.flow.dim, flow.flow.depth = 16, 1
    flow.transformer.d_model, flow.transformer.num_heads, flow.transformer.num_layers = 32, 2, 2
    flow.lookup_table.dim, flow.lookup_table.n_bins = 32, bins
    mimi.inner_dim, mimi.outer_dim = 8, 32
    mimi.seanet.dimension, mimi.seanet.n_filters = 32, 2
    small = {"d_model": 32, "num_heads": 2, "num_layers": 1, "dim_feedforward": 32}
    small |= {"input_dimension": 32, "output_dimensions": (32,)}
    mimi.transformer = mimi.transformer.model_copy(update=small)
    mimi.quantizer.dimension, mimi.quantizer.output_dimension = 8, 32
    return made


def _write_tokenizer(path: Path, bins: int, is_full: bool) -> int:
    """BPE over characters, with the words' first character marked as SentencePiece does."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = token_decoders.Metaspace(prepend_scheme="always", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1, special_tokens=["<unk>"], show_progress=False,
        initial_alphabet=[chr(code) for code in range(33, 127)] + list("▁äöüßéèçñ"),
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT], trainer)
    if is_full:
        tokenizer.add_tokens([f"<{n}>" for n in range(bins - tokenizer.get_vocab_size())])
    tokenizer.save(str(path))
    return tokenizer.get_vocab_size()


if __name__ == "__main__":
    names = [name for name in sys.argv[2:] if name != "--full"] or ["english"]
    for each in names:
        write(Path(sys.argv[1]), each, is_full="--full" in sys.argv)
    print(f"--option model={sys.argv[1]} --segments 100")
