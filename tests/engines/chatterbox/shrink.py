"""Makes the package's models small. Import it before one is built or loaded.

Their sizes are written into constructors and a table: the numbers are changed, the code is not.
"""

from __future__ import annotations

import package  # noqa: F401  first: it decides how chatterbox is imported
from chatterbox.models.s3gen import s3gen
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2

LLAMA_CONFIGS["GPT2_medium"].update(
    n_embd=64, hidden_size=64, n_head=4, n_layer=2, n_ctx=2048, n_positions=2048
)
# Its hidden size stays: the perceiver beside it has it written in.
LLAMA_CONFIGS["Llama_520M"].update(num_hidden_layers=1, intermediate_size=64)

S3TokenizerV2.__init__.__defaults__ = tuple(
    ModelConfig(n_audio_state=64, n_audio_head=1, n_audio_layer=1)
    if isinstance(default, ModelConfig)
    else default
    for default in S3TokenizerV2.__init__.__defaults__
)


def _smaller(name: str, **sizes: object) -> None:
    made = getattr(s3gen, name)
    setattr(s3gen, name, lambda **given: made(**{**given, **sizes}))


_smaller("UpsampleConformerEncoder", num_blocks=1, linear_units=64)
_smaller(
    "ConditionalDecoder",
    n_blocks=1,
    num_mid_blocks=1,
    channels=[64],
    attention_head_dim=16,
    num_heads=2,
)
_smaller("HiFTGenerator", base_channels=64)
