"""The adapter in a real worker process: what it says it can do, speech, cancels, refusals."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration import raw_worker
from tests.integration.raw_worker import RawWorker
from tests.recordings import record
from voice_worker import messages as m

# Importing torch on a busy machine takes its time.
raw_worker.PATIENCE = 240.0
# A number is used once in a worker's life. The few that are written out are smaller.
JOBS = itertools.count(100)
TINY = Path(__file__).resolve().parent / "tiny" / "backend.py"


def worker(model, **options):
    return RawWorker(TINY, {"model": str(model), **options}, python=sys.executable)


@pytest.fixture(scope="module")
def turbo(checkpoints):
    with worker(checkpoints["turbo"]) as running:
        yield running


@pytest.fixture(scope="module")
def classic(checkpoints):
    with worker(checkpoints["classic"], max_seconds=1.5) as running:
        yield running


def say(worker, text, **fields):
    return worker.speak(next(JOBS), text, **fields)


def clone(recording, folder, digest="ab" * 32):
    return {
        "samples": [{"path": str(recording), "transcript": None}],
        "digest": digest,
        "cache": str(folder / "cache"),
    }


def test_ready_says_what_turbo_can_do(turbo):
    info = turbo.ready.info
    assert info["clones"]
    assert info["languages"] == ["en"]
    assert [speaker["id"] for speaker in info["speakers"]] == ["default"]
    assert info["min_sample_seconds"] == 5.0
    assert set(info["tags"]) == {
        "clear throat", "sigh", "shush", "cough", "groan", "sniff", "gasp", "chuckle", "laugh"
    }  # fmt: skip
    assert "max_seconds" in info["options"]
    assert "cfg_weight" not in info["options"]


def test_ready_says_what_classic_can_do(classic):
    info = classic.ready.info
    assert info["tags"] == []
    assert info["speakers"] == []
    assert {"exaggeration", "cfg_weight", "max_seconds"} <= set(info["options"])


def test_the_same_seed_gives_the_same_samples_whatever_came_between(turbo):
    first = say(turbo, "Hello there, [laugh] world.", seed=5)
    other = say(turbo, "Hello there, [laugh] world.", seed=6)
    again = say(turbo, "Hello there, [laugh] world.", seed=5)
    assert first.done.samples > 0
    assert first.pcm == again.pcm
    assert first.pcm != other.pcm


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_no_segment_is_longer_than_its_limit(turbo, seconds):
    # Beside it lie three tokens of silence.
    for seed in range(3):
        spoken = say(turbo, "Hello.", seed=seed, params={"max_seconds": seconds})
        assert 0 < spoken.done.samples <= (seconds + 0.12) * 24_000


def test_a_cut_is_told_in_the_log(classic, recording, tmp_path):
    voice = clone(recording, tmp_path)
    spoken = say(classic, "Hello.", voice=voice, params={"max_seconds": 0.8})
    assert spoken.done.samples == pytest.approx(0.8 * 24_000, abs=960)
    classic.wait_for_stderr("raise max_seconds")


def test_a_cancel_is_heeded_while_tokens_are_drawn(checkpoints, recording, tmp_path):
    voice = clone(recording, tmp_path)
    with worker(checkpoints["classic"], max_seconds=120, temperature=5.0) as running:
        running.send(m.Prepare(1, voice))
        assert isinstance(running.get(), m.Prepared)
        running.send(m.Synthesize(1, 1, "Hello there.", voice))
        running.send(m.Cancel(1))
        (ended,) = running.job(1)
        assert ended.cancelled
        # 120 s are 3000 tokens; it was left long before.
        assert ended.samples == 0
        assert say(running, "Hi.", voice=voice, params={"max_seconds": 0.5}).done.samples > 0


def test_a_recording_is_a_voice_prepared_before_it_speaks(turbo, recording, tmp_path):
    voice = clone(recording, tmp_path)
    turbo.send(m.Prepare(1, voice))
    assert isinstance(turbo.get(), m.Prepared)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["turbo.safetensors"]
    deep = record(tmp_path / "deep.wav", 6.0, pitch=90)
    mine = say(turbo, "Hello there.", voice=voice, seed=1)
    other = say(turbo, "Hello there.", voice=clone(deep, tmp_path / "b", "cd" * 32), seed=1)
    own = say(turbo, "Hello there.", seed=1)
    assert len({mine.pcm, other.pcm, own.pcm}) == 3
    assert say(turbo, "Hello there.", voice=voice, seed=1).pcm == mine.pcm


def test_a_short_recording_is_refused_when_the_voice_is_made(turbo, tmp_path):
    turbo.send(m.Prepare(2, clone(record(tmp_path / "s.wav", 4.0, pitch=150), tmp_path, "ef" * 32)))
    failed = turbo.get()
    assert failed.code == "sample_too_short"
    assert "more than 5 s" in failed.error


def test_its_sound_carries_the_watermark(turbo, models):
    spoken = say(turbo, "Hello there, this is a test of it.", seed=4)
    samples = np.frombuffer(spoken.pcm, "<i2").astype(np.float32) / 32768
    marker = models["turbo"].watermarker
    plain = np.random.default_rng(0).normal(0, 0.05, len(samples)).astype(np.float32)
    found = marker.get_watermark(samples, sample_rate=24_000)
    assert np.mean(found) > np.mean(marker.get_watermark(plain, sample_rate=24_000))


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_nothing_is_said_for_no_text(turbo, text):
    # The package would ask for some, aloud.
    assert say(turbo, text).done.samples == 0


@pytest.mark.parametrize(
    "text", ["…", "?!", "日本語です。", "👋🏽", "a" * 3000, "[sneeze]", "\u202e\u0000x", "é" * 50]
)
def test_any_text_is_spoken_or_refused_and_the_worker_lives(turbo, text):
    spoken = say(turbo, text, params={"max_seconds": 0.5})
    assert isinstance(spoken.end, m.Done | m.Failed)
    assert say(turbo, "Hello.", params={"max_seconds": 0.5}).done.samples > 0


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"voice": {"speaker": "af_heart"}}, "unknown_voice", "it has default"),
        ({"params": {"temperature": 99}}, "bad_option", "from 0.05 to 5"),
        ({"params": {"max_seconds": "long"}}, "bad_option", "max_seconds must be a number"),
        ({"params": {"top_k": True}}, "bad_option", "top_k"),
        ({"params": {"top_p": float("nan")}}, "bad_option", "top_p"),
    ],
)
def test_what_it_cannot_do_fails_one_job_with_a_remedy(turbo, fields, code, says):
    failed = say(turbo, "Hello.", **fields).failed
    assert failed.code == code
    assert says in failed.error


def test_a_classic_model_without_a_voice_asks_for_a_recording(classic):
    failed = say(classic, "Hello.").failed
    assert failed.code == "unknown_voice"
    assert "recording" in failed.error


def refusal(model, **options):
    with worker(model, **options) as running:
        assert isinstance(running.ready, m.Failed)
        assert running.wait() == 1
        return running.ready


def test_missing_weights_are_told_at_once_with_what_to_download(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with RawWorker(TINY, load=False, python=sys.executable) as running:
        running.get()
        running.send(m.Load({"model": "turbo"}))
        failed = running.get()  # it does not try for ever
        assert isinstance(failed, m.Failed)
        assert failed.code == "model_missing"
        assert "ResembleAI/chatterbox-turbo" in failed.error
        assert "--local-dir" in failed.error


@pytest.mark.parametrize("missing", ["t3_turbo_v1.safetensors", "ve.safetensors", "vocab.json"])
def test_a_folder_that_is_not_whole_names_what_it_lacks(checkpoints, tmp_path, missing):
    for file in checkpoints["turbo"].iterdir():
        if file.name != missing:
            (tmp_path / file.name).symlink_to(file)
    from checkpoint import find

    with pytest.raises(Exception, match=missing):
        find(str(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "other shape"])
def test_damaged_weights_are_told_as_such(checkpoints, tmp_path, damage):
    import torch
    from safetensors.torch import save_file

    for file in checkpoints["turbo"].iterdir():
        if file.name != "ve.safetensors":
            (tmp_path / file.name).symlink_to(file)
    if damage == "cut":
        content = (checkpoints["turbo"] / "ve.safetensors").read_bytes()
        (tmp_path / "ve.safetensors").write_bytes(content[:1000])
    else:
        save_file({"a": torch.zeros(1)}, tmp_path / "ve.safetensors")
    failed = refusal(tmp_path)
    assert failed.code == "model_incomplete"
    assert "hf download ResembleAI/chatterbox-turbo" in failed.error


def test_options_that_make_no_sense_are_refused_at_the_load(checkpoints):
    failed = refusal(checkpoints["turbo"], cfg_weight=0.5)
    assert failed.code == "bad_option"
    assert "unknown option 'cfg_weight'" in failed.error
