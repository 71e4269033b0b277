"""What ``bench.qwen3_gpu`` found, as a table for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.sections import why_missing


def table(found: dict[str, Any]) -> str:
    lines = [f"Qwen3-TTS {found['size']} on {found['device']}, torch {found['torch']}"]
    for name, tell in _SECTIONS.items():
        section = found.get(name, {"missing": "it was not reached"})
        why = why_missing(section)
        lines += [f"{name}: {why}"] if why else tell(section)
    if found["is_meaningful"] and not found.get("has_graphs"):
        lines.append("Without CUDA graphs, which could not be made: see capture.")
    if not found["is_meaningful"]:
        lines.append("Not a GPU, or not the full size: these figures say that the script runs.")
    return "\n".join(lines)


def _parity(how: str, found: dict[str, Any]) -> list[str]:
    equal = f"{found['equal_frames']} of {found['frames']} frames equal the package's"
    return [f"fp32 parity{how}: {equal}"]


def _first(found: dict[str, float]) -> list[str]:
    return ["", f"first sound, nobody else speaking, p50: {found['p50']} ms, p95: {found['p95']}"]


def _throughput(found: list[dict[str, float]]) -> list[str]:
    return ["", "streams  audio-s/s, host included"] + [
        f"{row['streams']:7} {row['audio_seconds_per_second']:10.1f}" for row in found
    ]


def _stages(found: list[dict[str, Any]]) -> list[str]:
    head = "batch  talker  predictor   frame   codec   floor  % of floor  audio-s/s   (ms)"
    return ["", head] + [
        f"{row['batch']:5} {row['talker_ms']:7.2f} {row['predictor_ms']:10.2f}"
        f" {row['frame_ms']:7.2f} {row['codec_ms']:7.2f} {row['floor_ms']:7.2f}"
        f" {row['floor_percent']:11.0f} {row['audio_seconds_per_second']:10.1f}"
        for row in found
    ]


def _fusion(found: list[dict[str, Any]]) -> list[str]:
    return ["", "batch  layers  sampling  launches   frame   (ms)"] + [
        f"{row['batch']:5}  {row['layers']}   {row['sampling']}   {row['launches']:8}"
        f" {row['frame_ms']:9.2f}"
        for row in found
    ]


def _cancel(found: dict[str, Any]) -> list[str]:
    return ["", f"cancel to the next turn in its slot, p50: {found['p50']} ms, no step between"]


def _listeners(name: str, key: str, found: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"{name:>10}  turns   raw p50    p95    p99   audible p95  underruns   (ms)"]
    for row in found:
        raw, audible = row["raw_ms"], row["audible_ms"]
        lines.append(
            f"{row[key]:10} {row['turns']:6} {raw.get('p50', 0):9.1f} {raw.get('p95', 0):6.1f}"
            f" {raw.get('p99', 0):6.1f} {audible.get('p95', 0):13.1f} {row['underruns']:10}"
        )
    return lines


def _crowds(found: list[dict[str, Any]]) -> list[str]:
    best = max((row["listeners"] for row in found if not row["underruns"]), default=0)
    return [
        "",
        f"listeners in real time without an underrun: {best} (the most that was tried"
        f" is {found[-1]['listeners']})",
    ]


def _package(found: dict[str, Any]) -> list[str]:
    head = "rival, one clip at a time            first sound   a frame   (ms)"
    return ["", head, _rival("qwen-tts, the whole clip", found)]


def _faster(found: dict[str, Any]) -> list[str]:
    chunks = [name for name in found if name.startswith("chunk_")]
    return [
        _rival(f"faster-qwen3-tts, {name.removeprefix('chunk_')} frames a chunk", found[name])
        for name in chunks
    ]


def _rival(name: str, found: dict[str, Any]) -> str:
    return f"{name:36} {found['ttfa_ms']:11.1f} {found['ms_per_frame']:9.2f}"


_SECTIONS: dict[str, Callable[[Any], list[str]]] = {
    "parity_fp32": partial(_parity, ""),
    "parity_fp32_graphs": partial(_parity, " with graphs"),
    "capture": lambda found: [f"graphs made in {found['capture_seconds']} s"],
    "stages": _stages,
    "fusion": _fusion,
    "first_sounds": _first,
    "cancel": _cancel,
    "throughput": _throughput,
    "arrivals": partial(_listeners, "requests/s", "per_second"),
    "token_streams": partial(_listeners, "tokens/s", "tokens_per_second"),
    "crowds": _crowds,
    "qwen_tts": _package,
    "faster_qwen3_tts": _faster,
}
