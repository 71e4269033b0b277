"""The Qwen3-TTS engine on a GPU: parity, time by stage, fusion, first audio, listeners, rivals.

    backends/qwen3/.venv/bin/python -m bench.qwen3_gpu     1.7B, CUDA, under 10 minutes
                                       ... --size 0.6b
                                       ... --faster PYTHON   beside faster-qwen3-tts, by the
                                           interpreter of the venv that it is installed in
                                       ... --tiny          seconds, on a CPU: proves the script

Weights are random and made on the device; the end of sequence is barred, so that every turn has
its full length. The engine is driven in its own process: socket and server are bench.latency's.
Prints a table, and writes the figures of each section as JSON when it is done: one that fails costs
no other its own. By estimate, on an H200, in seconds: parity 15, fusion 10, capture 40, stages 20,
cancel 2, arrivals 85, token_streams 35, crowds 30, qwen_tts 15, faster_qwen3_tts 60.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
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

from bench import qwen3_load as load
from bench import qwen3_model, qwen3_plain, qwen3_rivals
from bench.qwen3_table import table
from bench.sections import Sections
from voice_worker.backend import Voice

FULL = {
    "batches": (1, 8, 32, 64, 128, 256),
    "rates": (1, 4, 10, 20, 40),
    "run_seconds": 12.0,
    "turn_seconds": 5.0,
    "token_rates": (20, 50, 100),
    "crowds": (64, 128, 192, 256),
    "slots": 256,
    "max_length": 1024,
    "repeats": 30,
    "parity_frames": 32,
    "package_frames": 32,
    "fusion_batches": (1, 64),
}
TINY = {
    "batches": (1, 2),
    "rates": (8,),
    "run_seconds": 1.5,
    "turn_seconds": 0.4,
    "token_rates": (50,),
    "crowds": (1, 2),
    "slots": 2,
    "max_length": 256,
    "repeats": 2,
    "parity_frames": 6,
    "package_frames": 4,
    "fusion_batches": (2,),
}


# Seconds after which no further section begins.
BUDGET = 480.0


class Bench:
    def __init__(self, size: str, device: torch.device, plan: dict[str, Any]) -> None:
        self.size, self.device, self.plan = size, device, plan
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def engine(self, wrapper: Any, *, slots: int | None = None, graphs: bool = True) -> Engine:
        engine = Engine(
            wrapper,
            EngineOptions.from_map(
                {
                    "model": "random",
                    "slots": slots or self.plan["slots"],
                    "max_length": self.plan["max_length"],
                    "frames_per_token": 100.0,
                    "graphs": graphs,
                }
            ),
            self.device,
        )
        engine.parts.talker.suppressed[engine.parts.talker.end] = True
        # Random weights may run in circles: that is no reason to say it again.
        engine._guard = SimpleNamespace(check=lambda *_: None)  # type: ignore[assignment]
        return engine

    # -- parity ----------------------------------------------------------------------------------

    def parity(self) -> dict[str, Any]:
        """Greedy codes against the package's generate(), float32, both at full size."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        wrapper = qwen3_model.make(self.size, self.device, torch.float32)
        with torch.no_grad():
            wrapper.model.talker.codec_head.weight[2150] = 0.0
        engine = self.engine(wrapper, slots=1, graphs=False)
        wanted = self.plan["parity_frames"]
        theirs = qwen3_rivals.generate(wrapper, wanted)
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
        program = Program(run, self.device, stream, use_graphs=is_cuda)
        with torch.no_grad():
            if is_cuda:
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
        size = (1 << 30) if self.device.type == "cuda" else (1 << 26)
        source = torch.empty(size, dtype=torch.uint8, device=self.device).random_()
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return 2 * size / (self._time(copy) / 1e3)

    def cancels(self, engine: Engine) -> dict[str, float]:
        """From a cancel, with a frame in flight, to the next turn in its slot."""
        voice, params = Voice(speaker=qwen3_model.SPEAKER), {"language": "en"}
        text = " ".join(load.words(64, random.Random(0)))
        for job in range(engine.slots):
            engine.admit(job, voice, params, job)
            engine.feed(job, text)
        times = []
        for job in range(engine.slots, engine.slots + self.plan["repeats"]):
            engine.step(list(engine._streams))
            began = time.perf_counter()
            engine.cancel(job - engine.slots)
            engine.admit(job, voice, params, job)
            times.append(time.perf_counter() - began)
            engine.feed(job, text)
        for job in list(engine._streams):
            engine.cancel(job)
        return {"turns_beside": engine.slots - 1, **load.percentiles(times)}

    # -- crowds ----------------------------------------------------------------------------------

    def arrivals(self, engine: Engine) -> list[dict[str, Any]]:
        """Time to first audio of listeners who come at random, their text all there."""
        found = []
        for rate in self.plan["rates"]:
            random_ = random.Random(rate)
            times = load.poisson(rate, self.plan["run_seconds"], random_)
            served = self._serve(engine, [(at, None) for at in times], random_)
            found.append({"per_second": rate, "turns": len(times), **load.ttfa(served)})
        return found

    def token_streams(self, engine: Engine) -> list[dict[str, Any]]:
        """The same while a language model still writes, from the token that made sound possible."""
        found = []
        for rate in self.plan["token_rates"]:
            random_ = random.Random(rate)
            times = load.poisson(4, self.plan["run_seconds"] / 2, random_)
            served = self._serve(engine, [(at, rate) for at in times], random_)
            possible = [s.first_raw - s.runnable_since for s in served if s.first_raw]
            found.append(
                {
                    "tokens_per_second": rate,
                    "turns": len(times),
                    "from_possible_ms": load.percentiles(possible),
                    **load.ttfa(served),
                }
            )
        return found

    def crowds(self, engine: Engine) -> list[dict[str, Any]]:
        """Listeners at once in real time, until some run dry."""
        found = []
        for count in [count for count in self.plan["crowds"] if count <= engine.slots]:
            random_ = random.Random(count)
            # Spread over a second: nobody's crowd arrives in one instant.
            times = [(random_.random(), None) for _ in range(count)]
            served = self._serve(engine, times, random_)
            underruns = sum(listener.underruns for listener in served)
            found.append({"listeners": count, "underruns": underruns, **load.ttfa(served)})
            if underruns:
                break
        return found

    def _serve(
        self, engine: Engine, arrivals: list[tuple[float, float | None]], random_: random.Random
    ) -> list[load.Listener]:
        seconds = self.plan["turn_seconds"]
        # A frame takes a token, and here a token is a byte: enough text for every frame.
        count = int(seconds * 12.5) + 2
        listeners = [
            load.Listener(job, at, load.words(count, random_), rate, seconds)
            for job, (at, rate) in enumerate(arrivals)
        ]
        limit = self.plan["run_seconds"] + 4 * seconds
        return load.run(engine, listeners, qwen3_model.SPEAKER, limit)


def _rows(batch: int, used: int) -> list[Row]:
    """One row a slot, in the middle of a turn."""
    return [Row(n, 1, used - 1, 0, 1, n, 7, 50, 0.9, 1.0, 1.05) for n in range(batch)]


def measure(
    size: str, device: torch.device, plan: dict[str, Any], faster: str | None, output: Path
) -> dict[str, Any]:
    about = {
        "size": size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "is_meaningful": device.type == "cuda" and size != "tiny",
    }
    sections = Sections(about, output, BUDGET)
    bench = Bench(size, device, plan)
    sections.run("parity_fp32", bench.parity)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    wrapper = qwen3_model.make(size, device, bench.dtype)
    sections.run("fusion", lambda: bench.fusion(wrapper))
    engine = bench.engine(wrapper)
    sections.run("capture", lambda: bench.capture(engine))
    sections.run("stages", lambda: bench.stages(engine))
    sections.run("cancel", lambda: bench.cancels(engine))
    sections.run("arrivals", lambda: bench.arrivals(engine))
    sections.run("token_streams", lambda: bench.token_streams(engine))
    sections.run("crowds", lambda: bench.crowds(engine))
    frames = plan["package_frames"]
    sections.run("qwen_tts", lambda: qwen3_rivals.package(wrapper, frames))
    sections.run("faster_qwen3_tts", lambda: qwen3_rivals.faster(faster, size, frames))
    return sections.found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(qwen3_model.SIZES), default="1.7b")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--faster", metavar="PYTHON", help="one that has faster-qwen3-tts")
    parser.add_argument("--output", type=Path, default=Path("build/qwen3_gpu.json"))
    chosen = parser.parse_args(arguments)
    if not chosen.tiny and not torch.cuda.is_available():
        sys.exit("no CUDA device: run it where nvidia-smi lists one, or with --tiny")
    device = torch.device("cpu" if chosen.tiny else "cuda:0")
    if chosen.tiny:
        torch.set_num_threads(1)
    size, plan = ("tiny", TINY) if chosen.tiny else (chosen.size, FULL)
    found = measure(size, device, plan, chosen.faster, chosen.output)
    print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
