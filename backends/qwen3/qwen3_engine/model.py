"""The two decoder transformers of Qwen3-TTS as plain tensors: the talker and the code predictor.

Weights come from the package's loaded modules. Projections that read the same input are joined
into one matrix, and embeddings followed by a projection are multiplied out into tables once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from voice_worker.backend import BackendError


class Window(Protocol):
    """Where a forward pass keeps its keys and values."""

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, N, kv_heads, D] and return all that may be read: [B, kv_heads, T, D]."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    norm_in: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor
    k_norm: Tensor
    out: Tensor
    out_bias: Tensor | None
    norm_mid: Tensor
    gate_up: Tensor
    down: Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, N, heads, D] by cos, sin [B, N, 1, D]."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin


class Stack:
    """Decoder layers and the final norm. Holds no state: keys and values live in a Window."""

    def __init__(self, model: Any, config: Any, max_length: int, *, is_shared: bool) -> None:
        if config.hidden_act != "silu":
            raise BackendError(
                f"activation {config.hidden_act!r} is not one this engine knows", code="wrong_model"
            )
        attention = model.layers[0].self_attn
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = attention.head_dim
        self.eps = config.rms_norm_eps
        self.layers = [_layer(layer, is_shared) for layer in model.layers]
        self.norm = model.norm.weight.detach()
        self.cos, self.sin = _rotary_table(
            self.head_dim, config.rope_theta, max_length, self.norm.device, self.norm.dtype
        )

    @torch.no_grad()
    def forward(self, x: Tensor, positions: Tensor, window: Window, mask: Tensor | None) -> Tensor:
        """x [B, N, H] at positions [B, N] (or [1, N]) → the normed hidden states [B, N, H].

        ``mask`` is [B or 1, 1, N, T], True where a key may be read; None where all may.
        """
        batch, count, _ = x.shape
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        widths = [n * self.head_dim for n in (self.heads, self.kv_heads, self.kv_heads)]
        groups = self.heads // self.kv_heads
        if mask is not None and count > 1:
            mask = mask.repeat(1, 1, groups, 1)
        for index, layer in enumerate(self.layers):
            h = rms_norm(x, layer.norm_in, self.eps)
            q, k, v = F.linear(h, layer.qkv, layer.qkv_bias).split(widths, -1)
            q = rms_norm(q.view(batch, count, -1, self.head_dim), layer.q_norm, self.eps)
            k = rms_norm(k.view(batch, count, -1, self.head_dim), layer.k_norm, self.eps)
            v = v.view(batch, count, -1, self.head_dim)
            keys, values = window.update(index, rotate(k, cos, sin), v)
            # The query heads that share a key head become query positions: plain attention, no
            # repeated keys, and every SDPA kernel takes it.
            q = rotate(q, cos, sin).view(batch, count, self.kv_heads, groups, self.head_dim)
            q = q.permute(0, 2, 3, 1, 4).reshape(batch, self.kv_heads, groups * count, -1)
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            mixed = mixed.view(batch, self.kv_heads, groups, count, self.head_dim)
            mixed = mixed.permute(0, 3, 1, 2, 4).reshape(batch, count, -1)
            x = x + F.linear(mixed, layer.out, layer.out_bias)
            h = rms_norm(x, layer.norm_mid, self.eps)
            gate, up = F.linear(h, layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return rms_norm(x, self.norm, self.eps)


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
        self.head = talker.codec_head.weight.detach()
        words = talker.get_text_embeddings()
        self.text = _projected(words.weight, talker.text_projection)
        if not is_shared:
            _give_back(words)
        self.first_codes = talker.get_input_embeddings().weight.detach()
        self.later_codes = torch.stack(
            [e.weight.detach() for e in talker.code_predictor.get_input_embeddings()]
        )
        vocab = talker.config.vocab_size
        # As the package: the last 1024 ids are controls that are never sampled, but for the end.
        self.suppressed = torch.arange(vocab, device=self.head.device) >= vocab - 1024
        self.end = talker.config.codec_eos_token_id
        self.suppressed[self.end] = False

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Codes [n, groups] → what the talker is given for each of those frames, [n, H]."""
        total = self.first_codes[codes[:, 0]]
        for group in range(1, self.groups):
            total = total + self.later_codes[group - 1][codes[:, group]]
        return total


class Predictor:
    """The small transformer that fills in codebooks 1 … of a frame, one after another."""

    def __init__(self, talker: Any, max_rows: int, *, is_shared: bool = True) -> None:
        source = talker.code_predictor
        groups = talker.config.num_code_groups
        self.steps = groups - 1
        self.stack = Stack(source.model, source.config, groups + 1, is_shared=is_shared)
        self.heads = torch.stack([head.weight.detach() for head in source.lm_head])
        projection = source.small_to_mtp_projection
        is_identity = isinstance(projection, torch.nn.Identity)
        self.weight = None if is_identity else projection.weight.detach()
        self.bias = None if is_identity else projection.bias.detach()
        self.first_codes = _projected(talker.get_input_embeddings().weight, projection)
        # The last codebook's embedding only feeds the talker.
        self.later_codes = torch.stack(
            [_projected(e.weight, projection) for e in source.get_input_embeddings()][:-1]
            or [self.first_codes]
        )
        shape = (len(self.stack.layers), max_rows, self.stack.kv_heads, groups, self.stack.head_dim)
        self.keys = self.heads.new_zeros(shape)
        self.values = self.heads.new_zeros(shape)
        device = self.heads.device
        self.positions = torch.arange(groups, device=device)[None]
        self.causal = torch.ones(2, 2, dtype=torch.bool, device=device).tril()[None, None]

    def project(self, hidden: Tensor) -> Tensor:
        return hidden if self.weight is None else F.linear(hidden, self.weight, self.bias)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """x [B, N, h] at positions start … of a fresh frame → hidden state of the last, [B, h]."""
        stop = start + x.shape[1]
        window = _FrameWindow(self.keys[:, : len(x)], self.values[:, : len(x)], start, stop)
        mask = self.causal if x.shape[1] == 2 else None
        return self.stack.forward(x, self.positions[:, start:stop], window, mask)[:, -1]


@dataclass(slots=True)
class _FrameWindow:
    """Keys and values of the frame being made: forgotten when it is done."""

    keys: Tensor
    values: Tensor
    start: int
    stop: int

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer, :, :, self.start : self.stop] = keys.transpose(1, 2)
        self.values[layer, :, :, self.start : self.stop] = values.transpose(1, 2)
        return self.keys[layer, :, :, : self.stop], self.values[layer, :, :, : self.stop]


def _layer(layer: Any, is_shared: bool) -> Layer:
    a, mlp = layer.self_attn, layer.mlp
    projections = (a.q_proj, a.k_proj, a.v_proj)
    has_bias = a.q_proj.bias is not None
    return Layer(
        norm_in=layer.input_layernorm.weight.detach(),
        qkv=_joined(projections, is_shared),
        qkv_bias=torch.cat([p.bias.detach() for p in projections]) if has_bias else None,
        q_norm=a.q_norm.weight.detach(),
        k_norm=a.k_norm.weight.detach(),
        out=a.o_proj.weight.detach(),
        out_bias=None if a.o_proj.bias is None else a.o_proj.bias.detach(),
        norm_mid=layer.post_attention_layernorm.weight.detach(),
        gate_up=_joined((mlp.gate_proj, mlp.up_proj), is_shared),
        down=mlp.down_proj.weight.detach(),
    )


def _joined(modules: tuple[Any, ...], is_shared: bool) -> Tensor:
    """The weights of projections that read the same input, as one matrix."""
    joined = torch.cat([module.weight.detach() for module in modules])
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


def _rotary_table(
    dim: int, theta: float, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    # In float32 and then rounded, as the package does. The three axes of its mRoPE always hold the
    # same position here, which makes it plain rotary embedding.
    steps = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    angles = torch.arange(length).float()[:, None] * (1.0 / theta**steps)
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)
