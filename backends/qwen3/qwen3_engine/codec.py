"""Codes to samples, exactly, however the frames are grouped: the codec's decoder with memory.

Every layer of the decoder is causal, so a stream is continued exactly by keeping, for each layer,
the last inputs it still looks back at: zeros at the start, which is what the decoder pads with.
The transformer keeps the keys and values of its sliding window in a ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .model import rms_norm, rotary_table, rotate

# x [B, C, T] and the slots [B] its rows belong to → what comes out, [B, C', T'].
Layer = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class CodecState:
    """A copy of one slot's memory, to continue from there as often as wanted."""

    tensors: tuple[Tensor, ...]
    frames: Tensor


class Codec:
    """The decoder for ``slots`` streams at once (and one scratch row).

    ``decode`` takes at most ``max_group`` frames of each stream in a call.
    """

    def __init__(self, decoder: Any, slots: int, max_group: int) -> None:
        self.rows = slots + 1
        self.max_group = max_group
        self.samples_per_frame = int(decoder.total_upsample)
        self._memory: list[Tensor] = []
        self._staged: list[tuple[Tensor, Tensor]] = []
        self._codes = _code_tables(decoder.quantizer)
        self._like = self._codes
        self.codebooks = len(self._codes)
        self._pre = self._conv(decoder.pre_conv)
        self._transformer = _Transformer(decoder.pre_transformer, self.rows, max_group)
        self._layers: list[Layer] = []
        for transposed, block in decoder.upsample:
            self._layers += [self._transposed(transposed), self._convnext(block)]
        for block in decoder.decoder:
            self._layers.append(self._block(block))
        self.frames = torch.zeros(self.rows, dtype=torch.int64, device=self._like.device)

    @torch.no_grad()
    def decode(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Continue the streams ``rows`` [B] by codes [B, groups, n] → samples [B, n × 1920]."""
        self._staged.clear()
        groups = torch.arange(codes.shape[1], device=codes.device)[:, None]
        x = self._codes[groups, codes].sum(1).transpose(1, 2)
        x = self._pre(x, rows).transpose(1, 2)
        x = self._transformer(x, rows, self.frames[rows]).transpose(1, 2)
        for layer in self._layers:
            x = layer(x, rows)
        samples, frames = x[:, 0].clamp(-1, 1), self.frames[rows] + codes.shape[2]
        # Memory moves on only when all is made: a call that ran out of room can be repeated.
        for memory, kept in self._staged:
            memory[rows] = kept
        self._staged.clear()
        self.frames[rows] = frames
        return samples

    def reset(self, slot: int) -> None:
        """Begin a new stream. The transformer's ring needs no clearing: ``frames`` masks it."""
        for tensor in self._memory:
            tensor[slot] = 0
        self.frames[slot] = 0

    def save(self, slot: int) -> CodecState:
        tensors = (*self._memory, *self._transformer.rings)
        return CodecState(tuple(t[slot].clone() for t in tensors), self.frames[slot].clone())

    def restore(self, slot: int, state: CodecState) -> None:
        for tensor, saved in zip(
            (*self._memory, *self._transformer.rings), state.tensors, strict=True
        ):
            tensor[slot] = saved
        self.frames[slot] = state.frames

    def bytes_each(self) -> int:
        """Memory of one stream."""
        tensors = (*self._memory, *self._transformer.rings)
        return sum(t[0].numel() * t.element_size() for t in tensors)

    # -- layers: each closure owns the memory of one layer -----------------------------------------

    def _remember(self, channels: int, width: int) -> Callable[[Tensor, Tensor], Tensor]:
        """A function that puts what came before in front of x, and keeps what comes before next."""
        if width == 0:
            return lambda x, rows: x
        memory = self._like.new_zeros(self.rows, channels, width)
        self._memory.append(memory)

        def join(x: Tensor, rows: Tensor) -> Tensor:
            joined = torch.cat((memory[rows], x), -1)
            self._staged.append((memory, joined[..., -width:].clone()))
            return joined

        return join

    def _conv(self, module: Any) -> Layer:
        conv = module.conv
        join = self._remember(conv.in_channels, module.padding)
        return lambda x, rows: conv(join(x, rows))

    def _transposed(self, module: Any) -> Layer:
        conv = module.conv
        stride = conv.stride[0]
        overlap = (conv.kernel_size[0] - stride) // stride
        join = self._remember(conv.in_channels, overlap)

        def run(x: Tensor, rows: Tensor) -> Tensor:
            start = overlap * stride
            return conv(join(x, rows))[..., start : start + x.shape[-1] * stride]

        return run

    def _convnext(self, block: Any) -> Layer:
        depthwise = self._conv(block.dwconv)

        def run(x: Tensor, rows: Tensor) -> Tensor:
            h = block.norm(depthwise(x, rows).transpose(1, 2))
            h = block.gamma * block.pwconv2(block.act(block.pwconv1(h)))
            return x + h.transpose(1, 2)

        return run

    def _residual(self, unit: Any) -> Layer:
        first, second = self._conv(unit.conv1), self._conv(unit.conv2)
        enter, middle = _snake(unit.act1), _snake(unit.act2)
        return lambda x, rows: x + second(middle(first(enter(x, rows), rows), rows), rows)

    def _block(self, block: Any) -> Layer:
        if hasattr(block, "block"):
            activation, transposed, *units = block.block
            steps = [_snake(activation), self._transposed(transposed)]
            steps += [self._residual(unit) for unit in units]

            def run(x: Tensor, rows: Tensor) -> Tensor:
                for step in steps:
                    x = step(x, rows)
                return x

            return run
        return self._conv(block) if hasattr(block, "conv") else _snake(block)


class _Transformer:
    """The decoder's transformer over the last ``window`` frames, kept in a ring per slot."""

    def __init__(self, module: Any, rows: int, max_group: int) -> None:
        config = module.config
        self.module = module
        self.window = config.sliding_window
        self.eps = config.rms_norm_eps
        self.heads = config.num_key_value_heads
        self.dim = module.layers[0].self_attn.head_dim
        # Room for the window of the oldest of max_group new frames.
        self.size = self.window - 1 + max_group
        shape = (rows, len(module.layers), self.heads, self.size, self.dim)
        like = module.norm.weight
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.rings = (self.keys, self.values)
        self.groups = config.num_attention_heads // self.heads
        self.inverse = module.rotary_emb.inv_freq.float().to(like.device)

    def __call__(self, x: Tensor, rows: Tensor, frames: Tensor) -> Tensor:
        """x [B, n, C] at frames … frames + n - 1 of each row → [B, n, C]."""
        count = x.shape[1]
        positions = frames[:, None] + torch.arange(count, device=x.device)
        angles = positions.float()[..., None, None] * self.inverse
        cos, sin = (table.to(x.dtype) for table in rotary_table(angles))
        places = positions % self.size
        # The frame each place of the ring holds by now; negative where nothing was written yet.
        newest = positions[:, -1:]
        held = newest - (newest - torch.arange(self.size, device=x.device)) % self.size
        query, held = positions[..., None], held[:, None]
        mask = ((held >= 0) & (held <= query) & (held > query - self.window))[:, None]
        x = self.module.input_proj(x)
        for index, layer in enumerate(self.module.layers):
            a = layer.self_attn
            h = rms_norm(x, layer.input_layernorm.weight, self.eps)
            q, k, v = (
                p(h).view(*h.shape[:2], -1, self.dim) for p in (a.q_proj, a.k_proj, a.v_proj)
            )
            self.keys[rows[:, None], index, :, places] = rotate(k, cos, sin)
            self.values[rows[:, None], index, :, places] = v
            keys, values = self.keys[rows, index], self.values[rows, index]
            if self.groups > 1:
                keys = keys.repeat_interleave(self.groups, 1)
                values = values.repeat_interleave(self.groups, 1)
            q = rotate(q, cos, sin).transpose(1, 2)
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            mixed = mixed.transpose(1, 2).reshape(*h.shape[:2], -1)
            x = x + layer.self_attn_layer_scale.scale * a.o_proj(mixed)
            h = rms_norm(x, layer.post_attention_layernorm.weight, self.eps)
            x = x + layer.mlp_layer_scale.scale * layer.mlp(h)
        return self.module.output_proj(rms_norm(x, self.module.norm.weight, self.eps))


@torch.no_grad()
def _snake(module: Any) -> Layer:
    """x + sin²(a x) / b, with the exponentials of its parameters taken once."""
    rate = module.alpha.exp()[:, None]
    scale = (1.0 / (module.beta.exp() + module.no_div_by_zero))[:, None]
    return lambda x, rows: x + scale * torch.sin(x * rate).square()


@torch.no_grad()
def _code_tables(quantizer: Any) -> Tensor:
    """[groups, codebook, channels]: a frame's vector is the sum of one row of each table."""
    tables = []
    for part in (quantizer.rvq_first, quantizer.rvq_rest):
        for layer in part.vq.layers:
            book = layer._codebook
            vectors = book.embedding_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None]
            vectors = layer.project_out(vectors)
            tables.append(part.output_proj(vectors.T[None])[0].T)
    return torch.stack(tables)
