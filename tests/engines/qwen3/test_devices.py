"""Where tensors are, who waits and who comes first on a device: see fake_cuda for how it is seen."""

from __future__ import annotations

import json
import shutil

import fake_cuda
import pytest
import torch
from driving import RYAN, Request, captured, cuda_engine, engine_of, speak
from fake_cuda import DEVICE, RaceError, WrongDeviceError
from qwen3_engine.engine import Engine
from qwen3_engine.options import EngineOptions
from qwen3_engine.slots import slots_that_fit
from test_parity import recording

from voice_worker.backend import BackendError, Sample, Voice

OPTIONS = {"slots": 2, "max_length": 256, "codec_group": 2}
TEXT = "the quick brown fox jumps over it."


@pytest.fixture
def cuda():
    with fake_cuda.installed() as fake:
        yield fake


def clone(folder, transcript, **more):
    recording(folder / "a.wav", seconds=1.0)
    return Voice(samples=(Sample(folder / "a.wav", transcript),), **more)


CASES = {
    "speaker": ("custom_voice", RYAN, {}),
    "dialect": ("custom_voice", Voice(speaker="dylan"), {"language": "zh", "top_p": 0.8}),
    "instructed": ("custom_voice", RYAN, {"instructions": "softly", "temperature": 0}),
    "embedding": ("base", None, {}),
    "reference": ("base", "hello world", {"top_p": 0.9}),
    "designed": ("voice_design", Voice(design="an old man"), {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "graphs"), [(torch.float32, False), (torch.bfloat16, True)])
def test_every_voice_is_spoken_on_one_device_without_a_wait(
    packages, tmp_path, case, dtype, graphs
):
    kind, voice, params = CASES[case]
    voice = clone(tmp_path, voice) if kind == "base" else voice
    request = Request(TEXT, voice, params, seed=3)
    with fake_cuda.installed() as fake:
        engine = cuda_engine(packages[kind], dtype, graphs=graphs, **OPTIONS)
        engine.prepare(voice)
        engine.admit(0, voice, params, 0)
        engine.cancel(0)
        fake.waits.clear()
        spoken = speak(engine, request, max_frames=6)
        # A graph that is made at its first use is a wait, and stops the device as well.
        assert bool(fake.waits) == graphs
        fake.waits.clear()
        again = speak(engine, request, max_frames=6)
        assert not fake.waits
    assert spoken.error is None
    assert spoken.frames == again.frames
    assert len(spoken.frames) >= 6
    if dtype == torch.float32:
        plain = speak(engine_of(packages[kind], **OPTIONS), request, max_frames=6)
        assert spoken.frames[:6] == plain.frames[:6]


def test_an_engine_beside_the_package_is_on_the_device_too(packages, cuda):
    engine = cuda_engine(packages["custom_voice"], torch.bfloat16, is_shared=True, **OPTIONS)
    assert len(speak(engine, Request(TEXT, RYAN), max_frames=3).frames) >= 3
    assert engine.parts.talker.text.device == DEVICE


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_worker_loads_to_the_device_and_makes_the_graphs_that_turns_will_need(
    checkpoints, tmp_path, cuda, top_p
):
    path = shutil.copytree(checkpoints["custom_voice"], tmp_path / "copy")
    settings = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps({**settings, "top_p": top_p}))
    engine = Engine.load(EngineOptions.from_map({"model": str(path), **OPTIONS}))
    assert engine.device == DEVICE
    assert engine.parts.talker.text.dtype == torch.bfloat16
    engine.prepare(RYAN)
    cuda.waits.clear()
    assert len(speak(engine, Request(TEXT, RYAN), max_frames=3).frames) >= 3
    assert not cuda.waits


def test_slots_fill_what_the_device_has_left(packages, cuda, monkeypatch):
    """Of 2 GiB with 1 free, 0.85 may be taken: 0.7 GiB remain."""
    talker = cuda_engine(packages["base"], torch.bfloat16, **OPTIONS).parts.talker
    options = EngineOptions.from_map({"model": "unused", "max_length": 32768})
    each = 2 * 2 * 2 * 16 * 32768 * 2 * 1.1
    assert slots_that_fit(talker, DEVICE, options) == int(0.7 * 2**30 / each)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (2**28, 2**31))
    with pytest.raises(BackendError, match="no room for one turn"):
        slots_that_fit(talker, DEVICE, options)


def test_a_voice_that_is_known_from_before_stops_nobody(packages, tmp_path, cuda):
    """Its codes and embedding come from the disk while others speak."""
    voice = clone(tmp_path, "hello world", digest="d1", cache=tmp_path)
    cuda_engine(packages["base"], **OPTIONS).prepare(voice)
    engine = captured(cuda_engine(packages["base"], **OPTIONS))
    cuda.waits.clear()
    engine.prepare(voice)
    assert not cuda.waits


def test_a_tensor_that_was_left_on_the_host_is_caught(packages, cuda):
    engine = cuda_engine(packages["custom_voice"], **OPTIONS, graphs=False)
    engine.parts.talker.suppressed = engine.parts.talker.suppressed.cpu()
    with pytest.raises(WrongDeviceError, match="masked_fill of tensors on two devices"):
        speak(engine, Request(TEXT, RYAN), max_frames=1)


def test_a_table_that_is_asked_with_numbers_of_the_host_makes_it_wait(cuda):
    table = torch.zeros(8, 4, device=DEVICE)
    host = torch.tensor([1, 2])
    for slow in (
        lambda: table[host],
        lambda: table[[1, 2]],
        lambda: table.__setitem__(host, 0.0),
        lambda: table[table[:, 0] > 0],
        lambda: torch.tensor([1, 2], device=DEVICE),
        lambda: host.to(DEVICE, non_blocking=True),
        lambda: host.pin_memory().to(DEVICE),
        lambda: table.cpu(),
        lambda: table.sum().item(),
        lambda: bool((table > 0).any()),
    ):
        cuda.waits.clear()
        slow()
        assert cuda.waits
    cuda.waits.clear()
    table[host.pin_memory().to(DEVICE, non_blocking=True)] += 1
    table[1] = 0.0
    torch.zeros(8, 4, pin_memory=True).copy_(table, non_blocking=True)
    assert not cuda.waits


def test_a_capture_refuses_what_waits_and_what_comes_from_the_host(cuda):
    stream = torch.cuda.Stream()
    x = torch.ones(3, device=DEVICE)
    pinned = torch.ones(3).pin_memory()
    for wrong in (
        lambda: x.sum().item(),
        lambda: x[x > 0],
        lambda: x + torch.tensor([1.0, 2, 3]),
        lambda: pinned.to(DEVICE, non_blocking=True),
    ):
        with pytest.raises(WrongDeviceError):
            with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
                wrong()


def test_streams_that_touch_the_same_memory_in_no_order_are_caught(cuda):
    one, other, x = torch.cuda.Stream(), torch.cuda.Stream(), torch.ones(3, device=DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(one):
        y = x * 2
    with torch.cuda.stream(other):
        assert (x + 1).device == DEVICE
        with pytest.raises(RaceError):
            y.add_(1)
        with pytest.raises(RaceError):
            x.zero_()
        other.wait_stream(one)
        y.add_(1)
        x.zero_()


def test_a_host_that_reads_codes_too_early_is_caught(packages, cuda, monkeypatch):
    monkeypatch.setattr(fake_cuda.Event, "synchronize", lambda _self: None)
    engine = cuda_engine(packages["custom_voice"], **OPTIONS)
    with pytest.raises(RaceError):
        speak(engine, Request(TEXT, RYAN), max_frames=4)


def test_a_step_on_a_stream_of_its_own_is_caught(packages, cuda):
    engine = captured(cuda_engine(packages["custom_voice"], **OPTIONS))
    engine.prepare(RYAN)
    speak(engine, Request(TEXT, RYAN), max_frames=2)
    with torch.cuda.stream(torch.cuda.Stream()), pytest.raises(RaceError):
        speak(engine, Request(TEXT, RYAN), max_frames=2)
