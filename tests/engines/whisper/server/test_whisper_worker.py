"""The adapter in a real worker process: what it writes down, what it refuses, how it stops."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.raw_worker import RawWorker, Speech
from tests.recordings import wav
from voice_server.audio.encode import encode_whole
from voice_worker import messages as m

PYTHON = os.environ.get("ENGINE_PYTHON", "")
NUMBERS = itertools.count(1)


def asked(
    worker: RawWorker, folder: Path, sound: bytes, *, samples: int = 1, **params: Any
) -> tuple[Speech, Path]:
    """One job over the sound, and where its answer is, or would be."""
    (folder / "sound.wav").write_bytes(sound)
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    sample = {"path": str(folder / "sound.wav"), "transcript": None}
    said = worker.speak(
        next(NUMBERS), "transcribe", voice={"samples": [sample] * samples, "digest": "d"},
        params={"answer": str(answer), **params},
    )  # fmt: skip
    return said, answer


def written(worker: RawWorker, folder: Path, sound: bytes, **params: Any) -> dict[str, Any]:
    said, answer = asked(worker, folder, sound, **params)
    assert isinstance(said.end, m.Done), said.end
    told: dict[str, Any] = json.loads(answer.read_bytes())
    assert {path.name for path in folder.iterdir()} == {"answer.json", "sound.wav"}
    return told


def test_it_says_that_it_speaks_nothing(worker: RawWorker) -> None:
    info = worker.ready.info
    assert not info["clones"]
    assert not info["speakers"]
    assert set(info["options"]) == {"answer", "words"}


def test_what_is_said_is_written_down_always_the_same(
    worker: RawWorker, speech: bytes, tmp_path: Path
) -> None:
    told = written(worker, tmp_path, speech, language="en-GB")
    assert told["text"].isascii()
    assert set(told["text"]) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert told["text"]
    assert told["language"] == "en"
    assert told["duration"] == pytest.approx(len(speech) / 48_000, abs=0.2)
    assert "".join(s["text"] for s in told["segments"]).strip() == told["text"]
    assert all(segment["words"] == [] for segment in told["segments"])
    assert written(worker, tmp_path, speech, language="en-GB") == told


def test_words_have_their_times(worker: RawWorker, speech: bytes, tmp_path: Path) -> None:
    told = written(worker, tmp_path, speech, words=True)
    assert told["language"], "it was not told, and has to be detected"
    words = [word for segment in told["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in words).strip() == told["text"]
    for word in words:
        assert 0 <= word["start"] <= word["end"] <= told["duration"]
        assert 0 <= word["probability"] <= 1


def test_in_silence_nothing_is_said(worker: RawWorker, tmp_path: Path) -> None:
    told = written(worker, tmp_path, encode_whole(bytes(2 * 48_000)), language="en")
    assert (told["text"], told["segments"]) == ("", [])


def test_what_cannot_be_done_is_refused_and_the_next_job_is_done(
    worker: RawWorker, speech: bytes, tmp_path: Path
) -> None:
    said, answer = asked(worker, tmp_path, speech, language="tlh")
    assert said.failed.code == "unsupported_language"
    assert "leave it out" in said.failed.error
    said, _ = asked(worker, tmp_path, speech, samples=2)
    assert "does not speak" in said.failed.error
    said, _ = asked(worker, tmp_path, speech, answer=7)
    assert isinstance(said.end, m.Failed)
    said, _ = asked(worker, tmp_path, b"no recording, whatever its name says")
    assert isinstance(said.end, m.Failed)
    assert not answer.exists()
    assert written(worker, tmp_path, speech)["text"]


def test_a_cancel_leaves_no_answer(worker: RawWorker, speech: bytes, tmp_path: Path) -> None:
    """Five minutes: it looks for a cancel after each segment, of thirty seconds at most."""
    sound, answer = tmp_path / "long.wav", tmp_path / "answer.json"
    pcm = speech[44:]
    sound.write_bytes(encode_whole(pcm * (300 * 48_000 // len(pcm))))
    voice = {"samples": [{"path": str(sound), "transcript": None}], "digest": "d"}
    # Nine more segments are the work of an instant, in which the cancel may not have been sent yet.
    for number in itertools.islice(NUMBERS, 20):
        worker.send(m.Synthesize(number, 1, "transcribe", voice, {"answer": str(answer)}))
        messages = worker.job(number)
        assert isinstance(next(messages), m.Audio)
        if number in worker.connection.jobs:
            worker.send(m.Cancel(number))
        end = list(messages)[-1]
        assert isinstance(end, m.Done)
        if end.cancelled:
            break
        answer.unlink()
    assert end.cancelled
    assert not answer.exists()


def test_a_model_that_is_not_there_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "empty", tmp_path / "missing"):
        options = {"model": str(model), "offline": True}
        with RawWorker("whisper", options, python=PYTHON) as worker:
            failed = worker.ready
            assert isinstance(failed, m.Failed)
            assert failed.code == "model_missing"
            assert "options.model in backends.yaml" in failed.error


def test_a_sound_without_speech_is_read_to_its_end(worker: RawWorker, tmp_path: Path) -> None:
    told = written(worker, tmp_path, wav(4, 180), language="en")
    assert told["duration"] == pytest.approx(4, abs=0.1)
