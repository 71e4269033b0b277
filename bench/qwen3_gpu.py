"""The Qwen3-TTS engine on a GPU: parity, time by stage, fusion, first audio, listeners, rivals.

    backends/qwen3/.venv/bin/python -m bench.qwen3_gpu     1.7B, CUDA, under 10 minutes
                                       ... --size 0.6b
                                       ... --faster PYTHON   beside faster-qwen3-tts, by the
                                           interpreter of the venv that it is installed in
                                       ... --tiny          seconds, on a CPU where there is no
                                           GPU: proves the script, and what the GPU can run of it

Weights are random and made on the device; the end of sequence is barred, so that every turn has
its full length. The engine is driven in its own process: socket and server are bench.latency's.
Prints a table, and writes the figures of each section as JSON when it is done: one that fails, or
loses the device, costs no other its own, and without graphs the rest is measured without. By
estimate, on an H200, in seconds: start 30, parity 35, capture 60, first_sounds 1, stages 20,
cancel 1, throughput 5, arrivals 85, crowds 30, token_streams 35, qwen_tts 15, fusion 20,
faster_qwen3_tts 60.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backends" / "qwen3"))

import torch
from qwen3_engine.engine import Engine
from qwen3_engine.frame import Row, first_code, later_codes, make_frame, roll, tables
from qwen3_engine.options import EngineOptions
from qwen3_engine.runners import Program

from bench import qwen3_model, qwen3_plain, qwen3_rivals
from bench.qwen3_listeners import Listeners
from bench.qwen3_table import table
from bench.sections import Sections, supervise
from voice_worker.backend import Voice

FULL = {
    "batches": (1, 8, 32, 64, 128, 256),
    "rates": (1, 4, 10, 20, 40),
    "run_seconds": 12.0,
    "turn_seconds": 5.0,
    "token_rates": (20, 50, 100),
    "crowds": (64, 128, 192, 256),
    "streams": (1, 64, 256),
    "slots": 256,
    "max_length": 1024,
    "repeats": 30,
    "parity_frames": 32,
    "package_frames": 32,
    "fusion_batches": (1, 64),
    "copy_bytes": 1 << 30,
}
TINY = {
    "batches": (1, 2),
    "rates": (8,),
    "run_seconds": 1.5,
    "turn_seconds": 0.4,
    "token_rates": (50,),
    "crowds": (1, 2),
    "streams": (2,),
    "slots": 2,
    "max_length": 256,
    "repeats": 2,
    "parity_frames": 6,
    "package_frames": 4,
    "fusion_batches": (2,),
    "copy_bytes": 1 << 24,
}


# Seconds after which no further section begins, and those after which one is stopped.
BUDGET = 500.0
SECTION_LIMIT = 200.0


class Bench:
    def __init__(self, size: str, device: torch.device, plan: dict[str, Any]) -> None:
        self.size, self.device, self.plan = size, device, plan
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.has_graphs = device.type == "cuda"
        self._theirs: list[tuple[int, ...]] = []

    def engine(
        self, wrapper: Any, *, slots: int | None = None, graphs: bool | None = None
    ) -> Engine:
        engine = Engine(
            wrapper,
            EngineOptions.from_map(
                {
                    "model": "random",
                    "slots": slots or self.plan["slots"],
                    "max_length": self.plan["max_length"],
                    "frames_per_token": 100.0,
                    "graphs": self.has_graphs if graphs is None else graphs,
                }
            ),
            self.device,
        )
        engine.parts.talker.suppressed[engine.parts.talker.end] = True
        # Random weights may run in circles: that is no reason to say it again.
        engine._guard = SimpleNamespace(check=lambda *_: None)  # type: ignore[assignment]
        return engine

    # -- parity ----------------------------------------------------------------------------------

    def parity(self, *, graphs: bool) -> dict[str, Any]:
        """Greedy codes against the package's generate(), float32, both at full size."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        wrapper = qwen3_model.make(self.size, self.device, torch.float32)
        with torch.no_grad():
            wrapper.model.talker.codec_head.weight[2150] = 0.0
        engine = self.engine(wrapper, slots=1, graphs=graphs)
        wanted = self.plan["parity_frames"]
        theirs = self._theirs = self._theirs or qwen3_rivals.generate(wrapper, wanted)
        mine: list[tuple[int, ...]] = []
        voice = Voice(speaker=qwen3_model.SPEAKER)
        engine.admit(1, voice, {"temperature": 0, "language": "en"}, 0)
        engine.feed(1, qwen3_rivals.TEXT)
        engine.finish_text(1)
        while len(mine) < wanted:
            engine.step([1])
            mine = engine.codes(1)
        pairs = zip(mine[:wanted], theirs, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return {"frames": wanted, "equal_frames": same, "is_equal": same == wanted}

    # -- stages ----------------------------------------------------------------------------------

    def capture(self, engine: Engine) -> dict[str, float]:
        """Make every graph before its first use, as a worker does when it loads."""
        began = time.perf_counter()
        engine.parts.frames.capture_all()
        engine.parts.codec.capture_all(engine.group_sizes())
        # As a worker does: what is there now is not looked at between two frames.
        gc.collect()
        gc.freeze()
        return {"capture_seconds": round(time.perf_counter() - began, 1)}

    def stages(self, engine: Engine) -> list[dict[str, float]]:
        """Milliseconds of one frame by stage, at positions in the middle of a turn."""
        bandwidth = self.bandwidth()
        return [
            self._stages_at(engine, batch, bandwidth)
            for batch in self.plan["batches"]
            if batch <= engine.slots
        ]

    def _stages_at(self, engine: Engine, batch: int, bandwidth: float) -> dict[str, float]:
        parts = engine.parts
        used = self.plan["max_length"] // 4
        rows = _rows(batch, used)
        is_dense = batch >= parts.frames.dense_from
        given = tables(rows, batch, parts.slots.scratch)
        hidden = parts.talker.head.new_zeros(batch, parts.talker.hidden_size)
        code = torch.zeros(batch, dtype=torch.int64)

        def dice(integers: Any, floats: Any) -> Any:
            return roll(parts.predictor, integers, floats, has_nucleus=False)

        def talker(_key: Any, integers: Any, floats: Any) -> Any:
            chance = dice(integers, floats)
            given = (parts.talker, parts.slots, integers, floats, used, chance)
            return first_code(*given, is_dense=is_dense)[1]

        def predictor(_key: Any, integers: Any, floats: Any, code: Any) -> Any:
            return later_codes(parts.predictor, hidden, code, dice(integers, floats))

        codes = torch.zeros(batch, 16, 1, dtype=torch.int64)
        numbers = list(range(batch))
        times = {
            "batch": batch,
            "talker_ms": self._time(self._program(talker, batch, *given)),
            "predictor_ms": self._time(self._program(predictor, batch, *given, code)),
            "frame_ms": self._time(lambda: parts.frames.launch(rows)[0].wait()),
            "codec_ms": self._time(lambda: parts.codec.decode(numbers, codes).wait()),
        }
        floor = self._bytes(engine, batch, used) / bandwidth * 1e3
        times["floor_ms"] = floor
        times["bandwidth_gb_per_second"] = bandwidth / 1e9
        times["floor_percent"] = 100 * floor / times["frame_ms"]
        times["audio_seconds_per_second"] = batch * 80 / (times["frame_ms"] + times["codec_ms"])
        return {name: round(value, 3) for name, value in times.items()}

    def fusion(self, wrapper: Any) -> list[dict[str, Any]]:
        """A frame with its parts fused, and with them as the package has them, one by one."""
        found = []
        for layers, sampling in (("fused", "fused"), ("plain", "fused"), ("fused", "plain")):
            engine = self.engine(wrapper, slots=max(self.plan["fusion_batches"]))
            if layers == "plain":
                qwen3_plain.made_plain(engine, wrapper.model)
            with qwen3_plain.plain_sampling() if sampling == "plain" else nullcontext():
                for batch in self.plan["fusion_batches"]:
                    figures = self._fusion_at(engine, batch)
                    found.append({"layers": layers, "sampling": sampling, **figures})
        return found

    def _fusion_at(self, engine: Engine, batch: int) -> dict[str, Any]:
        parts, used = engine.parts, self.plan["max_length"] // 4
        rows = _rows(batch, used)
        moved = [given.to(self.device) for given in tables(rows, batch, parts.slots.scratch)]
        count = qwen3_plain.launches(
            lambda: make_frame(parts.talker, parts.predictor, parts.slots, *moved, used)
        )
        frame_ms = self._time(lambda: parts.frames.launch(rows)[0].wait())
        return {"batch": batch, "launches": count, "frame_ms": round(frame_ms, 3)}

    def _program(self, run: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        """One stage as a graph of its own, where there are graphs."""
        key, *tensors = inputs
        is_cuda = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if is_cuda else None
        program = Program(run, self.device, stream, use_graphs=self.has_graphs)
        with torch.no_grad():
            if self.has_graphs:
                program.capture(key, *tensors)

        def call() -> Any:
            with torch.no_grad():
                return program(key, *tensors).wait()

        return call

    def _time(self, call: Callable[[], Any]) -> float:
        """Median milliseconds from start to result on the host."""
        for _ in range(3):
            call()
        times = []
        for _ in range(self.plan["repeats"]):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return sorted(times)[len(times) // 2] * 1e3

    def _bytes(self, engine: Engine, batch: int, used: int) -> float:
        """What one frame must read: each weight once, the predictor's fifteen times, the keys."""
        talker, predictor = engine.parts.talker, engine.parts.predictor

        def weights(stack: Any) -> int:
            return sum(
                tensor.numel()
                for layer in stack.layers
                for tensor in (layer.qkv, layer.out, layer.gate_up, layer.down)
            )

        total = weights(talker.stack) + talker.head.numel()
        total += predictor.steps * weights(predictor.stack) + predictor.heads.numel()
        stack = talker.stack
        keys = 2 * len(stack.layers) * stack.kv_heads * stack.head_dim * used * batch
        return (total + keys) * talker.head.element_size()

    def bandwidth(self) -> float:
        """Bytes a second of a large copy: read and written."""
        size = self.plan["copy_bytes"]
        source = torch.empty(size, dtype=torch.uint8, device=self.device).random_()
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return 2 * size / (self._time(copy) / 1e3)


def _rows(batch: int, used: int) -> list[Row]:
    """One row a slot, in the middle of a turn."""
    return [Row(n, 1, used - 1, 0, 1, n, 7, 50, 0.9, 1.0, 1.05) for n in range(batch)]


def measure(
    size: str,
    device: torch.device,
    plan: dict[str, Any],
    faster: str | None,
    output: Path,
    *,
    budget: float = BUDGET,
    limit: float | None = None,
) -> dict[str, Any]:
    """Every section, or those that ``output`` has not; ``limit``: see Sections."""
    about = {
        "size": size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "is_meaningful": device.type == "cuda" and size != "tiny",
    }
    # As in a worker. More threads only wake each other for tensors of a few numbers.
    torch.set_num_threads(1)
    sections = Sections(about, output, budget, is_resumed=limit is not None, limit=limit)
    bench = Bench(size, device, plan)
    sections.run("parity_fp32", lambda: bench.parity(graphs=False))
    sections.run("parity_fp32_graphs", lambda: bench.parity(graphs=True))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    wrapper = qwen3_model.make(size, device, bench.dtype)
    engine = bench.engine(wrapper)
    if "capture" in sections.found and not sections.is_missing("capture"):
        bench.capture(engine)
    sections.run("capture", lambda: bench.capture(engine))
    if sections.is_missing("capture"):
        # The figures without graphs are better than none, and so is a stream nobody captured on.
        del engine
        bench.has_graphs = False
        if device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.default_stream(device))
        engine = bench.engine(wrapper)
    sections.found["has_graphs"] = bench.has_graphs
    listeners = Listeners(engine, plan)
    sections.run("first_sounds", listeners.first_sounds)
    sections.run("stages", lambda: bench.stages(engine))
    sections.run("cancel", listeners.cancels)
    sections.run("throughput", listeners.throughput)
    sections.run("arrivals", listeners.arrivals)
    sections.run("crowds", listeners.crowds)
    sections.run("token_streams", listeners.token_streams)
    frames = plan["package_frames"]
    sections.run("qwen_tts", lambda: qwen3_rivals.package(wrapper, frames))
    sections.run("fusion", lambda: bench.fusion(wrapper))
    sections.run("faster_qwen3_tts", lambda: qwen3_rivals.faster(faster, size, frames))
    return sections.found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(qwen3_model.SIZES), default="1.7b")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on whatever is there")
    parser.add_argument("--faster", metavar="PYTHON", help="one that has faster-qwen3-tts")
    parser.add_argument("--output", type=Path, default=Path("build/qwen3_gpu.json"))
    parser.add_argument("--budget", type=float, help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(given)
    if not chosen.tiny and not torch.cuda.is_available():
        sys.exit("no CUDA device: run it where nvidia-smi lists one, or with --tiny")
    if chosen.budget is None:
        # In a process of its own: an error of CUDA leaves one that can do nothing more.
        command = [sys.executable, "-m", "bench.qwen3_gpu", *given]
        if not (found := supervise(command, chosen.output, BUDGET)):
            sys.exit("it ended before its first section")
        print(table(found))
        print(json.dumps(found))
        return
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    size, plan = ("tiny", TINY) if chosen.tiny else (chosen.size, FULL)
    limits = {"budget": chosen.budget, "limit": SECTION_LIMIT}
    measure(size, device, plan, chosen.faster, chosen.output, **limits)


if __name__ == "__main__":
    main()
