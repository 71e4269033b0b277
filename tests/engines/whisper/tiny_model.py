"""A Whisper model of random weights, two megabytes, written as CTranslate2 keeps it.

    backends/whisper/.venv/bin/python tests/engines/whisper/tiny_model.py FOLDER

Run by the engine's interpreter: CTranslate2's own specification says which weights there are, so
that neither torch nor a converter is needed. It understands nothing; but what it writes down is
letters, as many as it is allowed, and the same for the same sound.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ctranslate2.specs import whisper_spec
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WIDTH, INNER, HEADS, LAYERS = 64, 128, 2, 2
MELS, SOUND_FRAMES, TEXT_TOKENS = 80, 1500, 448


def write(folder: Path) -> None:
    """The model and its tokenizer, in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    shape = {"feature_size": MELS, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    told = {**shape, "chunk_length": 30, "feature_extractor_type": "WhisperFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    spec = _spec(tokenizer)
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [tokenizer.token_to_id(f"<|{code}|>") for code in _LANGUAGE_CODES]
    spec.config.alignment_heads = [(0, 0), (1, 1)]
    spec.validate()
    spec.save(str(folder))


def _tokenizer() -> Tokenizer:
    """Bytes as tokens, and the special tokens of the multilingual models in their order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", *_LANGUAGE_CODES]
    special += ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special += [f"{i * 0.02:.2f}" for i in range(1501)]
    tokenizer.add_special_tokens(
        [AddedToken(f"<|{name}|>", special=True, normalized=False) for name in special]
    )
    return tokenizer


def _spec(tokenizer: Tokenizer) -> whisper_spec.WhisperSpec:
    random = np.random.default_rng(0)

    def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(layer, outputs: int, inputs: int) -> None:
        layer.weight, layer.bias = weights(outputs, inputs), weights(outputs)

    def norm(layer) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def attention(layer, *outputs: int) -> None:
        norm(layer.layer_norm)
        for part, size in zip(layer.linear, outputs, strict=True):
            linear(part, size, WIDTH)

    def feed_forward(layer) -> None:
        norm(layer.layer_norm)
        linear(layer.linear_0, INNER, WIDTH)
        linear(layer.linear_1, WIDTH, INNER)

    spec = whisper_spec.WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    encoder, decoder = spec.encoder, spec.decoder
    for convolution, inputs in ((encoder.conv1, MELS), (encoder.conv2, WIDTH)):
        convolution.weight, convolution.bias = weights(WIDTH, inputs, 3), weights(WIDTH)
    encoder.position_encodings.encodings = weights(SOUND_FRAMES, WIDTH)
    norm(encoder.layer_norm)
    for layer in encoder.layer:
        attention(layer.self_attention, 3 * WIDTH, WIDTH)
        feed_forward(layer.ffn)
    size = tokenizer.get_vocab_size()
    decoder.embeddings.weight = weights(size, WIDTH)
    # The place in the text decides much of what is written, so that no letter goes on for ever.
    decoder.position_encodings.encodings = weights(TEXT_TOKENS, WIDTH, scale=2.0)
    norm(decoder.layer_norm)
    for layer in decoder.layer:
        attention(layer.self_attention, 3 * WIDTH, WIDTH)
        attention(layer.attention, WIDTH, 2 * WIDTH, WIDTH)
        feed_forward(layer.ffn)
    # Sure of each letter, and of nothing but letters: a doubtful model is asked again, at random.
    decoder.projection.weight = weights(size, WIDTH, scale=3.0)
    wanted = [tokenizer.token_to_id(letter) for letter in "abcdefghijklmnopqrstuvwxyzĠ"]
    decoder.projection.bias = np.full(size, -1_000, np.float32)
    decoder.projection.bias[wanted] = 0
    return spec


if __name__ == "__main__":
    write(Path(sys.argv[1]))
