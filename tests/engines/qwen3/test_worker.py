"""The adapter in a real worker process: the protocol, late text, cancels, and refusals to load."""

from __future__ import annotations

import json
import sys
import zlib

import numpy as np
import pytest

from tests.integration import raw_worker
from tests.integration.raw_worker import RawWorker
from tests.recordings import record
from voice_worker import messages as m

# Importing torch on a busy machine takes its time.
raw_worker.PATIENCE = 240.0


def worker(path, **options):
    return RawWorker(
        "qwen3", {"model": str(path), "device": "cpu", "slots": 3, **options}, python=sys.executable
    )


@pytest.fixture(scope="module")
def custom(checkpoints):
    with worker(checkpoints["custom_voice"], frames_per_token=2.0) as running:
        yield running


def sound(messages):
    pcm = b"".join(message.pcm for message in messages if isinstance(message, m.Audio))
    return np.frombuffer(pcm, "<i2")


def opened(running, job, seed=0, **fields):
    running.send(m.Open(job, 1, {"speaker": "ryan"}, {}, seed, **fields), m.Credit(job, -1))


def test_ready_says_what_the_model_can_do(custom):
    info = custom.ready.info
    assert info["slots"] == 3
    assert info["streams_text"]
    assert info["instructs"]
    assert not info["clones"]
    assert info["sample_rate"] == 24_000
    assert "ryan" in [speaker["id"] for speaker in info["speakers"]]
    assert set(info["languages"]) >= {"en", "zh", "de"}


def test_sound_comes_while_text_is_still_arriving(custom):
    opened(custom, 1)
    custom.send(m.Text(1, "hello wor"))
    first = next(custom.job(1))
    assert isinstance(first, m.Audio)
    for token in ("ld", " of", " speech", " and", " then", " the", " quick", " fox."):
        custom.send(m.Text(1, token))
    custom.send(m.EndText(1))
    rest = list(custom.job(1))
    assert isinstance(rest[-1], m.Done)
    assert rest[-1].samples == len(sound([first, *rest]))
    assert rest[-1].samples % 1920 == 0
    assert rest[-1].counts["frames"] * 1920 >= rest[-1].samples
    assert {"rollovers", "retries", "cuts", "out_of_memory"} <= rest[-1].counts.keys()


def test_turns_share_the_worker_and_keep_their_own_speech(custom):
    alone = []
    for job in (10, 11):
        opened(custom, job, seed=job)
        custom.send(m.Text(job, "the quick brown fox"), m.EndText(job))
        alone.append(sound(list(custom.job(job))))
    for job, seed in ((20, 10), (21, 11)):
        opened(custom, job, seed=seed)
    for token in ("the qu", "ick bro", "wn f", "ox"):
        custom.send(m.Text(20, token), m.Text(21, token))
    custom.send(m.EndText(20), m.EndText(21))
    over, received = 0, []
    while over < 2:
        received.append(custom.get())
        over += isinstance(received[-1], m.Done)
    for job, expected in zip((20, 21), alone, strict=True):
        made = sound([message for message in received if message.job == job])
        assert len(made) == len(expected)
        assert abs(made.astype(int) - expected).max() <= 1, "the last bit may round otherwise"


def test_a_cancelled_turn_says_nothing_more_and_its_slot_is_free(custom):
    for job in (30, 31, 32):
        opened(custom, job)
        custom.send(m.Text(job, "the quick brown fox jumps over the lazy dog"))
    next(custom.job(30))
    custom.send(m.Cancel(30))
    ended = [message for message in custom.job(30) if isinstance(message, m.Done)]
    assert ended[0].cancelled
    opened(custom, 33)
    custom.send(m.Text(33, "hi"), m.EndText(33))
    assert isinstance(list(custom.job(33))[-1], m.Done)
    for job in (31, 32):
        custom.send(m.Cancel(job))
        assert list(custom.job(job))[-1].cancelled


def test_a_turn_resumes_where_it_was_interrupted(custom):
    opened(custom, 40, seed=5)
    custom.send(m.Text(40, "the quick brown fox"), m.EndText(40))
    whole = sound(list(custom.job(40)))
    kept = len(whole) // 2
    crc = zlib.crc32(whole[:kept].tobytes())
    opened(custom, 41, seed=5, resume={"samples": kept, "crc": crc})
    custom.send(m.Text(41, "the quick "), m.Text(41, "brown fox"), m.EndText(41))
    assert np.array_equal(sound(list(custom.job(41))), whole[kept:])


def test_a_bad_option_fails_its_own_turn_with_a_remedy(custom):
    custom.send(m.Open(50, 1, {"speaker": "ryan"}, {"temperature": 99}, 0))
    (failed,) = list(custom.job(50))
    assert failed.code == "bad_option"
    assert "from 0 to 2" in failed.error


def test_a_recording_is_a_voice(checkpoints, tmp_path):
    voice = {
        "samples": [{"path": str(record(tmp_path / "me.wav")), "transcript": "hello world"}],
        "digest": "ab" * 32,
        "cache": str(tmp_path / "cache"),
    }
    with worker(checkpoints["base"], frames_per_token=2.0) as running:
        assert running.ready.info["clones"]
        running.send(m.Prepare(1, voice))
        assert isinstance(running.get(), m.Prepared)
        assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".safetensors"]
        running.send(
            m.Open(1, 1, voice, {"temperature": 0}), m.Credit(1, -1), m.Text(1, "the quick"),
            m.EndText(1),
        )  # fmt: skip
        assert list(running.job(1))[-1].samples > 0
        running.send(m.Open(2, 1, {}, {}))
        (failed,) = list(running.job(2))
        assert failed.code == "unknown_voice"


def refusal(path, **options):
    with worker(path, **options) as running:
        assert isinstance(running.ready, m.Failed)
        assert running.wait() == 1
        return running.ready


def test_a_model_that_cannot_be_loaded_says_why(checkpoints, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    failed = refusal(tmp_path)
    assert failed.code == "model_incomplete"
    assert "generation_config.json" in failed.error
