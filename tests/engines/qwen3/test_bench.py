"""The GPU benchmark runs from end to end on a tiny model: its figures mean nothing here."""

from __future__ import annotations

import json

from bench import qwen3_gpu


def test_the_benchmark_runs_and_writes_every_figure(tmp_path, capsys):
    output = tmp_path / "build" / "figures.json"
    qwen3_gpu.main(["--tiny", "--output", str(output)])
    printed = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert json.loads(printed.splitlines()[-1]) == found
    assert found["parity_fp32"]["is_equal"]
    assert not found["is_meaningful"]
    assert "these figures say that the script runs" in printed
    for name in ("arrivals", "token_streams", "crowds"):
        assert all(row["heard"] > 0 for row in found[name])
    for row in found["stages"]:
        assert row["floor_ms"] > 0
        assert row["frame_ms"] > 0
    assert found["qwen_tts"]["ms_per_frame"] > 0
