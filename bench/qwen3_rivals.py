"""The same frames by other engines, in the same run: qwen-tts, and faster-qwen3-tts.

faster-qwen3-tts wants another transformers than qwen-tts, so it runs in a venv of its own, as this
module: ``PYTHON -m bench.qwen3_rivals --size 1.7b --frames 32`` prints a line of JSON. All engines
have the weights of ``bench.qwen3_model``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backends" / "qwen3"))

import torch
from qwen3_engine.text import TextEncoder

from bench import qwen3_model

ROOT = Path(__file__).resolve().parents[1]
FASTER = "faster-qwen3-tts"
# Not together with qwen-tts: qwen-tts-hf is the same package for another transformers.
FASTER_INSTALL = f"python3 -m venv faster && faster/bin/pip install {FASTER}==0.5.4 msgpack"
TEXT = "the quick brown fox jumps over the lazy dog"


def generate(wrapper: Any, frames: int) -> list[tuple[int, ...]]:
    """Greedy codes of TEXT by the package's generate(), text streamed in."""
    codes, _ = wrapper.model.generate(
        input_ids=[_prompt(wrapper)],
        languages=["english"],
        speakers=[qwen3_model.SPEAKER],
        non_streaming_mode=False,
        do_sample=False,
        subtalker_dosample=False,
        max_new_tokens=frames + 1,
    )
    return [tuple(frame) for frame in codes[0].tolist()]


def package(wrapper: Any, frames: int) -> dict[str, Any]:
    """qwen-tts: whole clips, so its first sound is its last."""
    generate(wrapper, 2)
    start = time.perf_counter()
    codes = torch.tensor(generate(wrapper, frames), device=wrapper.model.device)
    _sound(wrapper, codes)
    took = time.perf_counter() - start
    return {"frames": frames, "ttfa_ms": round(took * 1e3, 1), **_speed(frames, took)}


def faster(python: str | None, size: str, frames: int) -> dict[str, Any]:
    """faster-qwen3-tts by ``python``; ``missing`` says why there are no figures."""
    if python is None:
        return {"missing": f"not installed here; {FASTER_INSTALL}, then --faster faster/bin/python"}
    command = [python, "-m", "bench.qwen3_rivals", "--size", size, "--frames", str(frames)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return {"missing": f"{python} did not run it: {exc}"}
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_faster(size: str, frames: int, chunks: tuple[int, ...] = (1, 12)) -> dict[str, Any]:
    """In its own venv, on CUDA. ``chunks``: frames before the first sound, 12 is its default."""
    wrapper = qwen3_model.make(size, torch.device("cuda:0"), torch.bfloat16)
    engine = faster_engine(wrapper, "cuda:0")
    found: dict[str, Any] = {"frames": frames}
    for chunk in chunks:
        list(speak_faster(engine, chunk, chunk))
        start, first = time.perf_counter(), 0.0
        for _ in speak_faster(engine, frames, chunk):
            first = first or time.perf_counter() - start
        took = time.perf_counter() - start
        found[f"chunk_{chunk}"] = {"ttfa_ms": round(first * 1e3, 1), **_speed(frames, took)}
    return found


def faster_engine(wrapper: Any, device: str) -> Any:
    """What ``FasterQwen3TTS.from_pretrained`` makes of a checkpoint, of a model that is there."""
    from faster_qwen3_tts.model import FasterQwen3TTS
    from faster_qwen3_tts.predictor_graph import PredictorGraph
    from faster_qwen3_tts.talker_graph import TalkerGraph

    talker, config = wrapper.model.talker, wrapper.model.config.talker_config
    about = {"device": device, "dtype": talker.dtype}
    predictor = talker.code_predictor
    graphs = (
        PredictorGraph(predictor, predictor.model.config, config.hidden_size, **about),
        TalkerGraph(talker.model, config, max_seq_len=1024, **about),
    )
    wrapper.model.speech_tokenizer.decode = lambda given: (
        [_sound(wrapper, given["audio_codes"][0])],
        24_000,
    )
    base = SimpleNamespace(
        model=wrapper.model,
        sample_rate=24_000,
        _validate_languages=lambda _: None,
        _validate_speakers=lambda _: None,
        _build_assistant_text=lambda text: text,
        _tokenize_texts=lambda _: [_prompt(wrapper)],
    )
    return FasterQwen3TTS(base, *graphs, **about, max_seq_len=1024)


def speak_faster(engine: Any, frames: int, chunk: int) -> Any:
    """Chunks of sound of TEXT; the end is barred until all ``frames`` are made."""
    return engine.generate_custom_voice_streaming(
        text=TEXT,
        speaker=qwen3_model.SPEAKER,
        language="english",
        non_streaming_mode=False,
        max_new_tokens=frames,
        min_new_tokens=frames,
        chunk_size=chunk,
    )


def _prompt(wrapper: Any) -> torch.Tensor:
    """TEXT in the chat form that generate() takes apart again."""
    config, text = wrapper.model.config, TextEncoder(wrapper.processor.tokenizer)
    start, end, line = config.im_start_token_id, config.im_end_token_id, text.tokens("\n")
    role = [start, *text.tokens("assistant\n")]
    ids = [*role, *text.tokens(TEXT), end, *line, *role]
    return torch.tensor([ids], device=wrapper.model.device)


def _sound(wrapper: Any, codes: torch.Tensor) -> torch.Tensor:
    decoder = wrapper.model.speech_tokenizer.model.decoder
    with torch.no_grad():
        return decoder(codes.clamp(max=2047).T[None])[0].float().cpu()


def _speed(frames: int, seconds: float) -> dict[str, float]:
    return {
        "ms_per_frame": round(seconds * 1e3 / frames, 2),
        "audio_seconds_per_second": round(frames * 0.08 / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure faster-qwen3-tts, where it is installed.")
    parser.add_argument("--size", default="1.7b")
    parser.add_argument("--frames", type=int, default=32)
    chosen = parser.parse_args()
    try:
        import faster_qwen3_tts  # noqa: F401
    except ModuleNotFoundError as exc:
        sys.exit(f"{exc.name} is not installed there: {FASTER_INSTALL}")
    if not torch.cuda.is_available():
        sys.exit(f"{FASTER} runs on CUDA alone, and its torch sees no device")
    print(json.dumps(measure_faster(chosen.size, chosen.frames)))


if __name__ == "__main__":
    main()
