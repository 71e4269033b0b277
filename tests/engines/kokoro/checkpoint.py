"""Writes random Kokoro checkpoints that load through the package's ``KModel``.

The same modules, vocabulary and voice tensors as the published model's; small where the package
lets its sizes be chosen, or of the full size, to measure.

    python checkpoint.py FOLDER [--full]
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from kokoro import KModel

SYMBOLS = ';:,.!?—…"()“” \u0303ʣʥʦʨᵝꭧAIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ'
VOICES = (
    *("af_heart", "af_bella", "am_adam", "bf_emma", "ef_dora", "ff_siwis", "hf_alpha"),
    *("if_sara", "jf_alpha", "pf_dora", "zf_xiaoxiao"),
)
# A frame is 25 ms, of which speech has about three a phoneme. Untrained, it would be 25; the small
# model speaks fast, since the decoder's sizes are fixed and what it costs is frames.
FRAMES_A_PHONEME, FEWEST = 3.0, 0.5


def config(is_full: bool = False) -> dict[str, Any]:
    """As config.json of the published model; the sizes that are equal are fixed in the package."""
    dilations = [1, 3, 5]
    return {
        "istftnet": {
            "upsample_kernel_sizes": [20, 12],
            "upsample_rates": [10, 6],
            "gen_istft_hop_size": 5,
            "gen_istft_n_fft": 20,
            "resblock_dilation_sizes": [dilations] * (3 if is_full else 1),
            "resblock_kernel_sizes": [3, 7, 11] if is_full else [3],
            "upsample_initial_channel": 512,
        },
        "dropout": 0.2,
        "hidden_dim": 512,
        "max_dur": 50,
        "n_layer": 3 if is_full else 1,
        "n_mels": 80,
        "n_token": 178,
        "style_dim": 128,
        "text_encoder_kernel_size": 5,
        "plbert": {
            "hidden_size": 768 if is_full else 32,
            "num_attention_heads": 12 if is_full else 2,
            "intermediate_size": 2048 if is_full else 32,
            "max_position_embeddings": 512,
            "num_hidden_layers": 12 if is_full else 1,
            "dropout": 0.1,
        },
        "vocab": {symbol: at for at, symbol in enumerate(SYMBOLS, 1)},
    }


def write(folder: Path, *, is_full: bool = False) -> Path:
    """``folder``, laid out as the hub's repository is."""
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    settings, weights = config(is_full), folder / "kokoro-v1_0.pth"
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    torch.save({}, weights)
    torch.manual_seed(0)
    model = KModel(repo_id="hexgrad/Kokoro-82M", config=settings, model=str(weights)).eval()
    tame(model, FRAMES_A_PHONEME if is_full else FEWEST)
    parts = ("bert", "bert_encoder", "predictor", "decoder", "text_encoder")
    # As published: each name begins with that of a wrapper.
    torch.save(
        {
            part: {f"module.{n}": t for n, t in getattr(model, part).state_dict().items()}
            for part in parts
        },
        weights,
    )
    for name in VOICES:
        torch.save(style(name), folder / "voices" / f"{name}.pt")
    return folder


def style(name: str) -> torch.Tensor:
    """[phonemes, 1, 256], as a voice is."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return (0.3 * torch.randn(1, 1, 256, generator=generator)).repeat(510, 1, 1)


@torch.no_grad()
def tame(model: KModel, frames: float) -> None:
    """Phonemes as long as speech has them, and sound far from clipping."""
    projection = model.predictor.duration_proj.linear_layer
    rate = frames / projection.out_features
    projection.bias.fill_(float(torch.logit(torch.tensor(rate))))
    sound = model("həlˈO wˈɜɹld.", style("af_heart")[10])
    loudness = float(sound.abs().max())
    # The last layer's first half is the logarithm of the spectrum.
    post = model.decoder.generator.conv_post
    post.bias[: len(post.bias) // 2] += float(torch.log(torch.tensor(0.3 / loudness)))


if __name__ == "__main__":
    write(Path(sys.argv[1]), is_full="--full" in sys.argv)
    print(f"--option model={sys.argv[1]} --segments 30")
