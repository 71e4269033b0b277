"""The frame step of Qwen3-TTS, plainly, as the package has it: what fusion is held against.

``made_plain`` takes the fused parts out of an engine: norms, rotary embedding, residuals and
sampling become the operations of the package, one after another. Codes must not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from qwen3_engine import frame
from qwen3_engine.engine import Engine
from qwen3_engine.sampler import Dice
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that only look at memory in another way: no kernel runs for them.
VIEWS = frozenset(
    "alias as_strided detach empty expand new_empty permute select slice split split_with_sizes t"
    " transpose unbind unsqueeze view _unsafe_view".split()
)


class PlainStack:
    """Decoder layers as the package runs them; ``forward`` is that of the engine's ``Stack``."""

    def __init__(self, model: Any, fused: Any) -> None:
        self.fused, self.model = fused, model
        self.layers, self.kv_heads, self.head_dim = fused.layers, fused.kv_heads, fused.head_dim

    @torch.no_grad()
    def forward(self, x: Tensor, positions: Tensor, window: Any, mask: Tensor | None) -> Tensor:
        eps, dim = self.fused.eps, self.head_dim
        half = dim // 2
        # The engine's table has the first half of the sines negated.
        cos, sin = (
            self.fused.cos[positions],
            self.fused.sin[positions][..., half:].repeat(1, 1, 1, 2),
        )
        groups = self.fused.heads // self.kv_heads

        def norm(x: Tensor, module: Any) -> Tensor:
            return F.rms_norm(x, (x.shape[-1],), module.weight, eps)

        def rotate(x: Tensor) -> Tensor:
            low, high = x.chunk(2, -1)
            return x * cos + torch.cat((-high, low), -1) * sin

        for index, layer in enumerate(self.model.layers):
            a, mlp = layer.self_attn, layer.mlp
            h = norm(x, layer.input_layernorm)
            q, k, v = (
                F.linear(h, p.weight).view(*h.shape[:2], -1, dim)
                for p in (a.q_proj, a.k_proj, a.v_proj)
            )
            q, k = rotate(norm(q, a.q_norm)), rotate(norm(k, a.k_norm))
            keys, values = window.update(index, torch.stack((k, v), 2))
            keys, values = (t.repeat_interleave(groups, 1) for t in (keys, values))
            mixed = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=mask)
            x = x + F.linear(mixed.transpose(1, 2).reshape(*h.shape[:2], -1), a.o_proj.weight)
            h = norm(x, layer.post_attention_layernorm)
            inner = F.silu(F.linear(h, mlp.gate_proj.weight)) * F.linear(h, mlp.up_proj.weight)
            x = x + F.linear(inner, mlp.down_proj.weight)
        return norm(x, self.model.norm)


class PlainDice(Dice):
    """One cut after another over all the logits."""

    def choose(self, logits: Tensor, start: int = 0) -> Tensor:
        noise = self.noise[:, start : start + logits.shape[-1]]
        logits = logits * self.heat
        count = self.last.clamp(max=logits.shape[-1] - 1)
        floor = logits.sort(-1, descending=True).values.gather(1, count)
        logits = logits.masked_fill(logits < floor, -torch.inf)
        if self.top_p is not None:
            ordered, places = logits.sort(-1, descending=True)
            chances = ordered.softmax(-1)
            is_cut = chances.cumsum(-1) - chances >= self.top_p
            is_cut[:, 0] = False
            logits = logits.masked_fill(is_cut.scatter(1, places, is_cut), -torch.inf)
        return (logits + noise).argmax(-1)


@contextmanager
def plain_sampling() -> Iterator[None]:
    """Frames that are run, or captured, within choose their codes plainly."""
    frame.Dice = PlainDice  # type: ignore[misc]
    try:
        yield
    finally:
        frame.Dice = Dice  # type: ignore[misc]


def made_plain(engine: Engine, model: Any) -> Engine:
    """``engine``, over the package's ``model``, with its transformers unfused."""
    talker, predictor = engine.parts.talker, engine.parts.predictor
    source = model.talker.code_predictor
    talker.stack = PlainStack(model.talker.model, talker.stack)  # type: ignore[assignment]
    talker.head = model.talker.codec_head.weight.detach()
    predictor.stack = PlainStack(source.model, predictor.stack)  # type: ignore[assignment]
    predictor.heads = torch.stack([head.weight.detach() for head in source.lm_head])
    if predictor.weight is not None:
        predictor.weight = source.small_to_mtp_projection.weight.detach()
    predictor.norm = torch.ones_like(predictor.norm)
    return engine


def launches(call: Callable[[], Any]) -> int:
    """How many kernels ``call`` starts: its operations, but for those that only look at memory."""
    with _Operations() as operations, _Norms(operations):
        call()
    return operations.count


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name.removeprefix("aten::") not in VIEWS
        return func(*args, **(kwargs or {}))


class _Norms(TorchFunctionMode):
    """A norm is one kernel on a GPU, though a CPU makes it of six operations."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._operations.count
        result = func(*args, **(kwargs or {}))
        if func is F.rms_norm:
            self._operations.count = before + 1
        return result
