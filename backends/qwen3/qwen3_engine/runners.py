"""Runs the two device programs, the frame step and the codec: called directly, or as CUDA graphs.

A graph is made for a fixed shape, so a batch is padded to the next size of ``BATCHES`` with rows of
the scratch slot, and the positions read to the next of ``lengths``. Without graphs nothing is
padded and the programs are the same.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from voice_worker.backend import BackendError
from voice_worker.failure import is_out_of_memory

from .codec import Codec, CodecState
from .frame import Row, idle, make_frame, tables
from .model import Predictor, Talker
from .slots import Slots

log = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256)
SHORTEST = 256


def batch_sizes(rows: int) -> list[int]:
    """The sizes that graphs are made for when at most ``rows`` run at once."""
    return [*[size for size in BATCHES if size < rows], rows]


def lengths(longest: int) -> list[int]:
    """How many positions a graph reads: doubling, up to ``longest``."""
    sizes = [SHORTEST]
    while sizes[-1] < longest:
        sizes.append(sizes[-1] * 2)
    return [*sizes[:-1], longest]


@dataclass(slots=True)
class Result:
    """What a program returns, on its way to the host."""

    host: Tensor
    event: Any = None

    def wait(self) -> Tensor:
        """The values; blocks until the device has made them, and for nothing later."""
        if self.event is not None:
            self.event.synchronize()
        return self.host


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: Any
    inputs: tuple[Tensor, ...]
    output: Tensor


def sent_to(device: torch.device, numbers: Tensor) -> Tensor:
    """A tensor of the host on ``device``. From pageable memory the copy would wait for the step in
    flight; pinned memory is not used again before the copy is over.
    """
    if device.type != "cuda":
        return numbers
    return numbers.pin_memory().to(device, non_blocking=True)


class Program:
    """``run(key, *inputs)`` on ``device``; with ``use_graphs``, captured once per key."""

    def __init__(
        self, run: Callable[..., Tensor], device: torch.device, stream: Any, *, use_graphs: bool
    ) -> None:
        self._run = run
        self._device = device
        self._stream = stream
        self._use_graphs = use_graphs
        self._captured: dict[Hashable, _Captured] = {}
        self._pool: Any = None

    def __call__(self, key: Hashable, *inputs: Tensor) -> Result:
        """Start the program on host tensors. Returns at once on CUDA."""
        if self._device.type == "cpu":
            return Result(self._run(key, *inputs))
        with torch.cuda.stream(self._stream):
            if self._use_graphs:
                captured = self._captured[key]
                for static, given in zip(captured.inputs, inputs, strict=True):
                    static.copy_(given.pin_memory(), non_blocking=True)
                captured.graph.replay()
                output = captured.output
            else:
                output = self._run(key, *[sent_to(self._device, given) for given in inputs])
            # The copy is queued behind the program: the next replay cannot overwrite it early.
            host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            host.copy_(output, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        return Result(host, event)

    def has(self, key: Hashable) -> bool:
        return key in self._captured

    def capture(self, key: Hashable, *inputs: Tensor) -> None:
        """Make the graph of ``key``. It runs a few times: ``inputs`` name the scratch slot only.

        Raises BackendError ``bad_option`` where the device cannot.
        """
        static = tuple(tensor.to(self._device) for tensor in inputs)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                self._run(key, *static)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                output = self._run(key, *static)
        except RuntimeError as exc:
            if is_out_of_memory(exc):
                raise
            # The same program just ran without one.
            raise BackendError(
                f"option 'graphs': {self._device} could not capture a CUDA graph ({exc}); set "
                "'graphs: false', which is slower and needs none",
                code="bad_option",
            ) from exc
        self._pool = self._pool or graph.pool()
        self._captured[key] = _Captured(graph, static, output)


class FrameKey(NamedTuple):
    """The shape of a frame step."""

    size: int
    used: int
    has_nucleus: bool
    is_dense: bool


class FrameRunner:
    """The frame step for a batch of rows."""

    # Below this the weights rule, and gathering keys costs next to nothing.
    dense_from = 16

    def __init__(
        self,
        talker: Talker,
        predictor: Predictor,
        slots: Slots,
        device: torch.device,
        *,
        graphs: bool,
    ) -> None:
        self._slots = slots
        self._graphs = graphs and device.type == "cuda"
        self._sizes = batch_sizes(slots.count)
        self._lengths = lengths(slots.length)
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        if self._graphs:
            # Graphs cannot be captured on the default stream; nothing else runs beside this one
            # but the codec.
            default, stream = stream, torch.cuda.Stream(device)
            stream.wait_stream(default)
            torch.cuda.set_stream(stream)

        def run(key: FrameKey, integers: Tensor, floats: Tensor) -> Tensor:
            return make_frame(
                talker,
                predictor,
                slots,
                integers,
                floats,
                key.used,
                has_nucleus=key.has_nucleus,
                is_dense=key.is_dense,
            )

        self._program = Program(run, device, stream, use_graphs=self._graphs)

    def launch(self, rows: list[Row]) -> tuple[Result, list[int]]:
        """Start one frame of every row → codes [B, groups], and where in them each row's are."""
        used = max(row.position for row in rows) + 1
        has_nucleus = any(row.top_p < 1.0 for row in rows)
        places = list(range(len(rows)))
        if is_dense := self._is_dense(rows):
            places = [row.slot for row in rows]
            rows = self._carried_along(rows)
        size = len(rows)
        if self._graphs:
            size, used = _next(self._sizes, size), _next(self._lengths, used)
        key = FrameKey(size, used, has_nucleus, is_dense)
        if self._graphs and not self._program.has(key):
            self._capture(key)
        return self._program(key, *tables(rows, size, self._slots.scratch)), places

    def _is_dense(self, rows: list[Row]) -> bool:
        """Whether to run all slots up to the last: their keys need not be gathered then, which
        saves two thirds of the traffic and costs the work of rows that run idle.
        """
        span = max(row.slot for row in rows) + 1
        return self.dense_from <= span <= len(rows) * 4 // 3

    def _carried_along(self, rows: list[Row]) -> list[Row]:
        by_slot = {row.slot: row for row in rows}
        last = self._slots.length - 1
        return [
            by_slot.get(slot) or idle(slot, min(self._slots.next_position[slot], last))
            for slot in range(max(by_slot) + 1)
        ]

    def _capture(self, key: FrameKey) -> None:
        self._program.capture(key, *tables([], key.size, self._slots.scratch))

    def capture_all(self, *, has_nucleus: bool = False) -> None:
        """Make every graph that turns need whose top_p is 1, or with ``has_nucleus`` is less; those
        of the others are made at their first use, each of which stops all turns for a moment.
        """
        if not self._graphs:
            return
        began = time.monotonic()
        keys = [
            FrameKey(size, used, has_nucleus, is_dense)
            # The largest first: the others then fit into its memory.
            for size in reversed(self._sizes)
            for used in reversed(self._lengths)
            for is_dense in (False, True)
            if not is_dense or size >= self.dense_from
        ]
        for key in keys:
            self._capture(key)
        log.info("captured %s frame graphs in %.1f s", len(keys), time.monotonic() - began)


class CodecRunner:
    """The codec for groups of frames, on a stream of its own beside the next frame step."""

    def __init__(self, codec: Codec, device: torch.device, *, graphs: bool) -> None:
        self.codec = codec
        self._device = device
        self._graphs = graphs and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._sizes = batch_sizes(codec.rows - 1)

        def run(_key: Hashable, rows: Tensor, codes: Tensor) -> Tensor:
            return codec.decode(rows, codes)

        self._program = Program(run, device, self._stream, use_graphs=self._graphs)

    def decode(self, rows: list[int], codes: Tensor) -> Result:
        """Codes [B, groups, n] of the slots ``rows`` → samples [≥ B, n × 1920]."""
        size = _next(self._sizes, len(rows)) if self._graphs else len(rows)
        scratch = self.codec.rows - 1
        padded = torch.tensor(rows + [scratch] * (size - len(rows)))
        if size > len(rows):
            codes = torch.cat((codes, codes.new_zeros(size - len(rows), *codes.shape[1:])))
        key = (size, codes.shape[2])
        if self._graphs and not self._program.has(key):
            self._capture(*key)
        return self._program(key, padded, codes)

    def _capture(self, size: int, count: int) -> None:
        rows = torch.full((size,), self.codec.rows - 1)
        codes = torch.zeros(size, self.codec.codebooks, count, dtype=torch.int64)
        self._program.capture((size, count), rows, codes)

    def capture_all(self, groups: list[int]) -> None:
        if not self._graphs:
            return
        for size in reversed(self._sizes):
            for count in groups:
                self._capture(size, count)

    def start(self, slot: int, state: CodecState | None) -> None:
        """Begin a stream in ``slot``: fresh, or after a reference."""
        with self._aside():
            self.codec.reset(slot)
            if state is not None:
                self.codec.restore(slot, state)

    def prime(self, codes: Tensor) -> CodecState:
        """The codec's memory after codes [T, groups], so that speech goes on from them."""
        row = self.codec.rows - 1
        with self._aside():
            rows = torch.full((1,), row, device=self._device)
            self.codec.reset(row)
            for part in sent_to(self._device, codes).T[None].split(self.codec.max_group, -1):
                self.codec.decode(rows, part)
            return self.codec.save(row)

    def _aside(self) -> Any:
        """On the codec's stream, after everything queued so far."""
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._stream)


def _next(sizes: list[int], wanted: int) -> int:
    return sizes[min(bisect_left(sizes, wanted), len(sizes) - 1)]
