"""The GPU benchmark runs from end to end on a tiny model: its figures mean nothing here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_cuda
import pytest
import torch

from bench import qwen3_gpu, qwen3_listeners, qwen3_rivals, qwen3_table
from bench.sections import Sections, supervise

ROOT = Path(qwen3_gpu.__file__).resolve().parents[1]


def measured(output, device="cpu", **more):
    plan = {**qwen3_gpu.TINY, "run_seconds": 0.6, "rates": (20,), "repeats": 1}
    return qwen3_gpu.measure("tiny", torch.device(device), plan, None, output, **more)


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
    fused, *others = found["fusion"]
    assert (fused["layers"], fused["sampling"]) == ("fused", "fused")
    assert all(other["launches"] > fused["launches"] for other in others)
    assert all(row["frame_ms"] > 0 for row in found["fusion"])
    # It wants a venv of its own, and the table says how to make one.
    assert "pip install faster-qwen3-tts" in found["faster_qwen3_tts"]["missing"]
    assert "faster_qwen3_tts: not installed here" in printed
    assert found["cancel"]["turns_beside"] == 1
    assert found["first_sounds"]["p50"] > 0
    assert found["throughput"][0]["audio_seconds_per_second"] > 0
    assert found["seconds"].keys() >= {"parity_fp32", "stages", "crowds", "qwen_tts"}


def test_a_section_that_fails_costs_no_other_its_figures(tmp_path, monkeypatch, capsys):
    output = tmp_path / "figures.json"

    def fails(_bench, **_how):
        raise RuntimeError("CUDA error: no such kernel")

    def never(_listeners):
        raise KeyboardInterrupt

    monkeypatch.setattr(qwen3_gpu.Bench, "parity", fails)
    monkeypatch.setattr(qwen3_listeners.Listeners, "arrivals", never)
    with pytest.raises(KeyboardInterrupt):
        measured(output)
    found = json.loads(output.read_text())
    assert found["parity_fp32"] == {"missing": "RuntimeError: CUDA error: no such kernel"}
    assert found["stages"][0]["frame_ms"] > 0
    printed = qwen3_table.table(found)
    assert "parity_fp32: RuntimeError: CUDA error" in printed
    assert "arrivals: the process ended, or was stopped, while it ran" in printed
    assert "crowds: it was not reached" in printed


def test_the_benchmark_runs_on_a_device_as_on_the_cpu(tmp_path):
    """Each of its sections, with graphs, on the device that is not there."""
    with fake_cuda.installed():
        found = measured(tmp_path / "figures.json", "cuda:0")
    missing = {name for name in found if Sections.is_missing(SimpleNamespace(found=found), name)}
    assert missing == {"faster_qwen3_tts"}
    assert found["has_graphs"]
    assert found["parity_fp32"]["is_equal"]
    assert found["parity_fp32_graphs"]["is_equal"]


def test_where_no_graph_can_be_made_the_rest_is_measured_without(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("operation not permitted when stream is capturing")

    for name in ("parity", "fusion"):
        monkeypatch.setattr(qwen3_gpu.Bench, name, lambda *_args, **_how: [])
    monkeypatch.setattr(qwen3_rivals, "package", lambda *_args: [])
    output = tmp_path / "figures.json"
    with fake_cuda.installed():
        monkeypatch.setattr(torch.cuda, "graph", refuse)
        found = measured(output, "cuda:0")
        assert "not permitted" in found["capture"]["missing"]
        assert found["stages"][0]["frame_ms"] > 0
        assert found["arrivals"][0]["heard"] > 0
        assert not found["has_graphs"]
        # A process that comes after one which ended early measures what is not there yet.
        kept = {name: found[name] for name in found if name != "stages"}
        output.write_text(json.dumps({**kept, "arrivals": []}))
        again = measured(output, "cuda:0", limit=100.0)
    assert again["stages"][0]["frame_ms"] > 0
    assert again["arrivals"] == []
    assert not again["has_graphs"]


def test_a_process_that_ends_in_a_section_is_followed_by_one_for_the_others(tmp_path):
    output = tmp_path / "figures.json"
    script = tmp_path / "measure.py"
    script.write_text(
        f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from bench.sections import Sections
def lost():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
sections = Sections({{}}, Path({str(output)!r}), 600.0, is_resumed=True, limit=5.0)
sections.run("first", os.getpid)
sections.run("lost", lost)
sections.run("killed", lambda: os.kill(os.getpid(), 9))
sections.run("hung", lambda: time.sleep(100))
sections.run("last", os.getpid)
"""
    )
    found = supervise([sys.executable, str(script)], output, budget=600.0)
    assert "illegal memory access" in found["lost"]["missing"]
    assert found["killed"]["missing"] == found["hung"]["missing"]
    assert found["first"] != found["last"]
    assert found["seconds"].keys() == {"first", "lost", "killed", "hung", "last"}


def test_a_process_that_finds_nothing_is_not_started_for_ever(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    assert supervise(command, tmp_path / "figures.json", budget=600.0) == {}


def test_a_section_without_time_left_is_not_begun(tmp_path):
    sections = Sections({}, tmp_path / "figures.json", budget=0.0)
    sections.run("long", lambda: pytest.fail("it was begun"))
    assert "no time left" in sections.found["long"]["missing"]


@pytest.mark.parametrize(
    ("python", "why"), [(sys.executable, "not installed there"), ("/no/such/python", "did not run")]
)
def test_a_rival_that_cannot_run_says_why(python, why):
    assert why in qwen3_rivals.faster(python, "tiny", 2)["missing"]


def test_the_table_holds_the_figures_of_a_rival_that_ran(tmp_path):
    """What faster-qwen3-tts prints on a GPU: its warm-up's words, then one line of JSON."""
    python = tmp_path / "python"
    chunk = {"ttfa_ms": 12.5, "ms_per_frame": 6.25, "audio_seconds_per_second": 12.8}
    line = json.dumps({"frames": 32, "chunk_1": chunk})
    python.write_text(f"#!/bin/sh\necho CUDA graph captured!\necho '{line}'\n")
    python.chmod(0o755)
    found = qwen3_rivals.faster(str(python), "1.7b", 32)
    assert found["chunk_1"] == chunk
    assert qwen3_table._rival("x", found["chunk_1"]).split() == ["x", "12.5", "6.25"]
