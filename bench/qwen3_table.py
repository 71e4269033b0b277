"""What ``bench.qwen3_gpu`` found, as a table for people."""

from __future__ import annotations

from typing import Any


def table(found: dict[str, Any]) -> str:
    parity = found["parity_fp32"]
    lines = [
        f"Qwen3-TTS {found['size']} on {found['device']}, torch {found['torch']}",
        f"fp32 parity: {parity['equal_frames']} of {parity['frames']} frames equal the package's",
        "",
        "batch  talker  predictor   frame   codec   floor  % of floor  audio-s/s   (ms)",
    ]
    for row in found["stages"]:
        lines.append(
            f"{row['batch']:5} {row['talker_ms']:7.2f} {row['predictor_ms']:10.2f}"
            f" {row['frame_ms']:7.2f} {row['codec_ms']:7.2f} {row['floor_ms']:7.2f}"
            f" {row['floor_percent']:11.0f} {row['audio_seconds_per_second']:10.1f}"
        )
    lines += ["", "batch  layers  sampling  launches   frame   (ms)"]
    for row in found["fusion"]:
        lines.append(
            f"{row['batch']:5}  {row['layers']}   {row['sampling']}   {row['launches']:8}"
            f" {row['frame_ms']:9.2f}"
        )
    for name, key in (("requests/s", "per_second"), ("tokens/s", "tokens_per_second")):
        lines += ["", f"{name:>10}  turns   raw p50    p95    p99   audible p95  underruns   (ms)"]
        for row in found["arrivals" if key == "per_second" else "token_streams"]:
            raw, audible = row["raw_ms"], row["audible_ms"]
            lines.append(
                f"{row[key]:10} {row['turns']:6} {raw.get('p50', 0):9.1f} {raw.get('p95', 0):6.1f}"
                f" {raw.get('p99', 0):6.1f} {audible.get('p95', 0):13.1f} {row['underruns']:10}"
            )
    best = max((row["listeners"] for row in found["crowds"] if not row["underruns"]), default=0)
    lines += ["", f"listeners in real time without an underrun: {best} (the most that was tried"
              f" is {found['crowds'][-1]['listeners']})"]  # fmt: skip
    lines += ["", "rival, one clip at a time            first sound   a frame   (ms)"]
    lines += [_rival("qwen-tts, the whole clip", found["qwen_tts"])]
    faster = found["faster_qwen3_tts"]
    if "missing" in faster:
        lines.append(f"faster-qwen3-tts: {faster['missing']}")
    for name in [name for name in faster if name.startswith("chunk_")]:
        frames = name.removeprefix("chunk_")
        lines.append(_rival(f"faster-qwen3-tts, {frames} frames a chunk", faster[name]))
    if not found["is_meaningful"]:
        lines.append("Not a GPU, or not the full size: these figures say that the script runs.")
    return "\n".join(lines)


def _rival(name: str, found: dict[str, Any]) -> str:
    return f"{name:36} {found['ttfa_ms']:11.1f} {found['ms_per_frame']:9.2f}"
