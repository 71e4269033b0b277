"""The device state of every slot: keys and values, the codes seen, and what the last frame was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voice_worker.backend import BackendError

if TYPE_CHECKING:
    from .model import Talker
    from .options import EngineOptions
    from .prompts import Prompt

DEFAULT_CPU_SLOTS = 4
MAX_SLOTS = 256


class Slots:
    """``count`` slots and one more, the scratch row: prompts are computed in it, and it pads a
    batch up to the size its CUDA graph was made for. What it holds means nothing afterwards.
    """

    def __init__(self, talker: Talker, count: int, length: int) -> None:
        stack, like = talker.stack, talker.head
        self.count = count
        self.length = length
        self.scratch = count
        # [layers, slots, keys and values, heads, positions, D].
        self.memory = like.new_zeros(
            len(stack.layers), count + 1, 2, stack.kv_heads, length, stack.head_dim
        )
        # The code side of the talker's next input: the sum of the last frame's embeddings.
        self.carry = like.new_zeros(count + 1, talker.hidden_size)
        self.seen = torch.zeros(
            count + 1, talker.config.vocab_size, dtype=torch.bool, device=like.device
        )
        # Known to the host: where each slot's next keys go. A row that runs idle in a batch writes
        # there, and its own next frame overwrites it.
        self.next_position = [0] * (count + 1)

    def window(
        self, rows: Tensor, positions: Tensor, used: int, *, is_dense: bool = False
    ) -> SlotWindow:
        """Keys and values of ``rows`` [B], written at ``positions`` [B, N], read up to ``used``.

        ``is_dense``: the rows are slots 0 … B - 1, so their keys are read in place.
        """
        return SlotWindow(self.memory, rows, positions, used, is_dense)

    def place(self, slot: int, prompt: Prompt) -> None:
        """Start a slot anew from a prompt. Nothing of what it held can be read afterwards.

        Keys past the prompt stay where they are; they are out of every mask until overwritten.
        """
        self.memory[:, slot, ..., : prompt.length, :] = prompt.memory
        self.carry[slot] = prompt.carry
        self.seen[slot] = False


@dataclass(slots=True)
class SlotWindow:
    memory: Tensor
    rows: Tensor
    positions: Tensor
    used: int
    is_dense: bool

    def update(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memory[layer]
        memory[self.rows[:, None], :, :, self.positions] = keys_values
        read = memory[..., : self.used, :]
        # Gathered into a copy where the rows are not just the first slots.
        read = read[: len(self.rows)] if self.is_dense else read.index_select(0, self.rows)
        keys, values = read.unbind(1)
        return keys, values

    def mask(self) -> Tensor:
        """[B, 1, N, used], added to scores: a position reads itself and what came before."""
        is_later = torch.arange(self.used, device=self.rows.device) > self.positions[..., None]
        return self.memory.new_zeros(is_later.shape).masked_fill_(is_later, -torch.inf)[:, None]


def slots_that_fit(talker: Talker, device: torch.device, options: EngineOptions) -> int:
    """As many as memory_fraction of the device leaves room for. Raises BackendError."""
    if device.type == "cpu":
        return DEFAULT_CPU_SLOTS
    # What loading made and dropped is still held for reuse, and would not count as free.
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    room = free - int(total * (1 - options.memory_fraction))
    stack = talker.stack
    each = 2 * len(stack.layers) * stack.kv_heads * stack.head_dim
    each *= options.max_length * talker.head.element_size()
    # A tenth more for the codec's memory and the step's working space.
    count = int(room / (each * 1.1))
    if count < 1:
        raise BackendError(
            f"{device} has no room for one turn of {options.max_length} positions beside the "
            "weights; set a smaller 'max_length' or a larger 'memory_fraction'",
            code="out_of_memory",
        )
    return min(count, MAX_SLOTS)
