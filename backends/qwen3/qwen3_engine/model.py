"""The two decoder transformers of Qwen3-TTS as plain tensors: the talker and the code predictor.

Weights come from the package's loaded modules, and are made ready for few, dependent kernels:
projections that read the same input are one matrix, the weight of a norm is part of the matrix that
follows it, embeddings followed by a projection are multiplied out into tables, and a residual is
added by the product that makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from voice_worker.backend import BackendError

from .sampler import Noise


class Window(Protocol):
    """Where a forward pass keeps its keys and values."""

    def update(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, N, 2, kv_heads, D] → all keys, all values, each [B, kv_heads, T, D]."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """Its two norms are part of ``qkv`` and ``gate_up``. ``qk_norm`` is [heads + kv_heads, D]."""

    qkv: Tensor
    qk_norm: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotary embedding of x [B, N, heads, D] by cos, sin [B, N, 1, D] of ``rotary_table``."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin, out=out)


def rotary_table(angles: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of angles [..., D / 2] for ``rotate``, [..., D]: the first half of the sines is
    negated here once, not the numbers at each turn.
    """
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


class Stack:
    """Decoder layers. Holds no state: keys and values live in a Window."""

    def __init__(self, model: Any, config: Any, max_length: int, *, is_shared: bool) -> None:
        if config.hidden_act != "silu" or config.attention_bias:
            raise BackendError(
                f"activation {config.hidden_act!r}, attention_bias {config.attention_bias}: no "
                "published Qwen3-TTS has that, and this engine does not know it",
                code="wrong_model",
            )
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = model.layers[0].self_attn.head_dim
        self.eps = config.rms_norm_eps
        self.layers = [self._layer(layer, is_shared) for layer in model.layers]
        # In float32 and then rounded, as the package does. The three axes of its mRoPE always hold
        # the same position here, which makes it plain rotary embedding.
        steps = torch.arange(0, self.head_dim, 2).float() / self.head_dim
        angles = torch.arange(max_length).float()[:, None] * (1.0 / config.rope_theta**steps)
        like = model.norm.weight
        self.cos, self.sin = (table.to(like)[:, None] for table in rotary_table(angles))

    @torch.no_grad()
    def forward(self, x: Tensor, positions: Tensor, window: Window, mask: Tensor | None) -> Tensor:
        """x [B, N, H] at positions [B, N] (or [1, N]) → hidden states [B, N, H], normalised.

        The weight of the final norm is left to what reads them. ``mask`` [B or 1, 1, N, T] is added
        to the scores, -inf where a key may not be read (of booleans each layer would make that
        again: 3 kernels); None where all may be. ``x`` is overwritten.
        """
        batch, count, hidden = x.shape
        cos, sin = self.cos[positions], self.sin[positions]
        groups, rotated = self.heads // self.kv_heads, self.heads + self.kv_heads
        if mask is not None and count > 1:
            mask = mask.repeat(1, 1, groups, 1)
        x = x.view(-1, hidden)
        for index, layer in enumerate(self.layers):
            qkv = F.linear(rms_norm(x, None, self.eps), layer.qkv)
            qkv = qkv.view(batch, count, -1, self.head_dim)
            qk = rms_norm(qkv, None, self.eps)[:, :, :rotated] * layer.qk_norm
            rotate(qk, cos, sin, out=qkv[:, :, :rotated])
            keys_values = qkv[:, :, self.heads :].unflatten(2, (2, self.kv_heads))
            keys, values = window.update(index, keys_values)
            # The query heads that share a key head become query positions: plain attention, no
            # repeated keys, and every SDPA kernel takes it.
            q = qkv[:, :, : self.heads].unflatten(2, (self.kv_heads, groups))
            q = q.permute(0, 2, 3, 1, 4).reshape(batch, self.kv_heads, groups * count, -1)
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            mixed = mixed.view(batch, self.kv_heads, groups, count, self.head_dim)
            x.addmm_(mixed.permute(0, 3, 1, 2, 4).reshape(len(x), -1), layer.out.T)
            gate, up = F.linear(rms_norm(x, None, self.eps), layer.gate_up).chunk(2, -1)
            x.addmm_(F.silu(gate).mul_(up), layer.down.T)
        return rms_norm(x, None, self.eps).view(batch, count, hidden)

    def _layer(self, layer: Any, is_shared: bool) -> Layer:
        a, mlp = layer.self_attn, layer.mlp
        norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
        heads = [a.q_norm.weight.detach()] * self.heads + [a.k_norm.weight.detach()] * self.kv_heads
        return Layer(
            qkv=_joined((a.q_proj, a.k_proj, a.v_proj), norms[0], is_shared),
            qk_norm=torch.stack(heads),
            out=a.o_proj.weight.detach(),
            gate_up=_joined((mlp.gate_proj, mlp.up_proj), norms[1], is_shared),
            down=mlp.down_proj.weight.detach(),
        )


class Talker:
    """Text and code embeddings in, a hidden state and logits of codebook 0 out.

    ``is_shared``: the package's module stays usable. Otherwise its weights are given back as they
    are taken over, so that loading never holds the model twice.
    """

    def __init__(self, talker: Any, max_length: int, *, is_shared: bool = True) -> None:
        self.config = talker.config
        self.stack = Stack(talker.model, talker.config, max_length, is_shared=is_shared)
        self.hidden_size = talker.config.hidden_size
        self.groups = talker.config.num_code_groups
        self.norm = talker.model.norm.weight.detach()
        self.head = talker.codec_head.weight.detach() * self.norm
        words = talker.get_text_embeddings()
        self.text = _projected(words.weight, talker.text_projection)
        if not is_shared:
            _give_back(words)
        self.first_codes = talker.get_input_embeddings().weight.detach()
        self.later_codes = torch.stack(
            [e.weight.detach() for e in talker.code_predictor.get_input_embeddings()]
        )
        self._later = torch.arange(self.groups - 1, device=self.head.device)
        vocab = talker.config.vocab_size
        # As the package: the last 1024 ids are controls that are never sampled, but for the end.
        self.suppressed = torch.arange(vocab, device=self.head.device) >= vocab - 1024
        self.end = talker.config.codec_eos_token_id
        self.suppressed[self.end] = False

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Codes [n, groups] → what the talker is given for each of those frames, [n, H]."""
        return self.first_codes[codes[:, 0]] + self.later_codes[self._later, codes[:, 1:]].sum(1)


class Predictor:
    """The small transformer that fills in codebooks 1 … of a frame, one after another."""

    def __init__(self, talker: Any, max_rows: int, *, is_shared: bool = True) -> None:
        source = talker.code_predictor
        groups = talker.config.num_code_groups
        self.steps = groups - 1
        self.stack = Stack(source.model, source.config, groups + 1, is_shared=is_shared)
        norm = source.model.norm.weight.detach()
        self.heads = torch.stack([head.weight.detach() * norm for head in source.lm_head])
        self.norm = talker.model.norm.weight.detach()
        projection = source.small_to_mtp_projection
        is_identity = isinstance(projection, torch.nn.Identity)
        self.weight = None if is_identity else projection.weight.detach() * self.norm
        self.bias = None if is_identity else projection.bias.detach()
        self.first_codes = _projected(talker.get_input_embeddings().weight, projection)
        # The last codebook's embedding only feeds the talker.
        self.later_codes = torch.stack(
            [_projected(e.weight, projection) for e in source.get_input_embeddings()][:-1]
            or [self.first_codes]
        )
        layers, kv_heads, dim = len(self.stack.layers), self.stack.kv_heads, self.stack.head_dim
        self.memory = self.heads.new_zeros(layers, max_rows, 2, kv_heads, groups, dim)
        device = self.heads.device
        self.noise = Noise([talker.config.vocab_size, *[self.heads.shape[1]] * self.steps], device)
        self.positions = torch.arange(groups, device=device)[None]
        self.causal = self.heads.new_full((2, 2), -torch.inf).triu(1)[None, None]

    def project(self, hidden: Tensor) -> Tensor:
        """The talker's hidden state [B, H] as the first input of a frame, [B, h]."""
        if self.weight is None:
            return hidden * self.norm
        return F.linear(hidden, self.weight, self.bias)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """x [B, N, h] at positions start … of a fresh frame → hidden state of the last, [B, h]."""
        stop = start + x.shape[1]
        window = _FrameWindow(self.memory[:, : len(x)], start, stop)
        mask = self.causal if x.shape[1] == 2 else None
        return self.stack.forward(x, self.positions[:, start:stop], window, mask)[:, -1]


@dataclass(slots=True)
class _FrameWindow:
    """Keys and values of the frame being made: forgotten when it is done."""

    memory: Tensor
    start: int
    stop: int

    def update(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memory[layer]
        memory[..., self.start : self.stop, :] = keys_values.permute(0, 2, 3, 1, 4)
        keys, values = memory[..., : self.stop, :].unbind(1)
        return keys, values


def _joined(modules: tuple[Any, ...], norm: Tensor, is_shared: bool) -> Tensor:
    """The weights of projections that read the same normed input, as one matrix."""
    joined = torch.cat([module.weight.detach() for module in modules]).mul_(norm.detach())
    if not is_shared:
        for module in modules:
            _give_back(module)
    return joined


def _give_back(module: Any) -> None:
    module.weight.data = module.weight.data.new_empty(0)


@torch.no_grad()
def _projected(table: Tensor, projection: Any) -> Tensor:
    """projection(table), in pieces: the text table has 150,000 rows."""
    return torch.cat([projection(rows) for rows in table.detach().split(8192)])
