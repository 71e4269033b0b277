"""One job's way out of the worker: cut, held back for credit, skipped for a resume, never lost."""

import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from voice_worker import BackendError, Word
from voice_worker import messages as m
from voice_worker.delivery import MESSAGE_BYTES, Delivery
from voice_worker.failure import (
    ResumeMismatch,
    describe,
    is_device_lost,
    is_out_of_memory,
    reason_of,
)

SOUND = np.random.default_rng(7).integers(-9000, 9000, 5000).astype(np.int16)


class Job:
    """A delivery and what it sent."""

    def __init__(self, *, resume=None, credit=None, rate=24_000, rounds=False) -> None:
        self.sent: list[m.Message] = []
        message = m.Synthesize(1, 1, "text", {}, resume=resume)
        self.delivery = Delivery(self.send, message, rate, 0.0, credit, rounds=rounds)

    def send(self, *messages: m.Message) -> None:
        self.sent += messages

    @property
    def pcm(self) -> bytes:
        return b"".join(x.pcm for x in self.sent if isinstance(x, m.Audio))

    @property
    def words(self) -> list[list[int]]:
        return [word for x in self.sent if isinstance(x, m.Words) for word in x.words]


def crc(samples: np.ndarray) -> int:
    return zlib.crc32(samples.tobytes())


def test_sound_goes_out_at_once_and_done_counts_it():
    job = Job()
    job.delivery.push(SOUND[:100])
    assert job.pcm == SOUND[:100].tobytes()
    job.delivery.finish()
    job.delivery.done(cancelled=False)
    done = job.sent[-1]
    assert isinstance(done, m.Done)
    assert (done.samples, done.cancelled) == (100, False)
    assert 0 < done.timing["first"] <= done.timing["total"]


def test_no_sound_means_no_time_of_a_first_chunk():
    job = Job()
    job.delivery.finish()
    job.delivery.done(cancelled=True)
    (done,) = job.sent
    assert isinstance(done, m.Done)
    assert done.timing.keys() == {"total"}


def test_a_large_chunk_is_cut():
    job = Job()
    job.delivery.push(np.zeros(MESSAGE_BYTES, dtype=np.int16))
    assert [len(x.pcm) for x in job.sent] == [MESSAGE_BYTES, MESSAGE_BYTES]  # type: ignore[attr-defined]
    assert [x.offset for x in job.sent] == [0, MESSAGE_BYTES // 2]  # type: ignore[attr-defined]


def test_the_tail_of_the_resampler_is_sent_at_the_end():
    job = Job(rate=8000)
    job.delivery.push(SOUND)
    assert len(job.pcm) < 2 * 15_000
    job.delivery.finish()
    job.delivery.done(cancelled=False)
    assert len(job.pcm) == 2 * 15_000


def test_words_are_told_in_samples_and_before_their_sound():
    job = Job()
    job.delivery.push(SOUND, (Word(0, 4, 0.0, 0.125), Word(5, 6, 0.125, 0.2)))
    assert isinstance(job.sent[0], m.Words)
    assert job.words == [[0, 4, 0, 3000], [5, 6, 3000, 4800]]


@given(st.lists(st.integers(1, 6000), max_size=8), st.lists(st.integers(1, 900), max_size=20))
def test_credit_delays_sound_and_loses_none(credits, sizes):
    job = Job(credit=0)
    limit, position = 0, 0
    for size in sizes:
        job.delivery.push(SOUND[position : position + size])
        position = min(position + size, len(SOUND))
        if credits:
            limit += credits.pop()
            job.delivery.grant(limit)
        assert len(job.pcm) == 2 * min(limit, position)
        assert job.delivery.is_drained == (limit >= position)
        assert job.delivery.has_credit == (position < limit)
    job.delivery.grant(None)
    assert job.pcm == SOUND[:position].tobytes()


@given(st.integers(1, 5000), st.lists(st.integers(1, 2000), max_size=10))
def test_a_resume_sends_exactly_the_rest(delivered, sizes):
    job = Job(resume={"samples": delivered, "crc": crc(SOUND[:delivered])}, credit=0)
    position = 0
    for size in [*sizes, 5000]:
        assert job.delivery.has_credit == (position < delivered)
        job.delivery.push(SOUND[position : position + size])
        position = min(position + size, 5000)
    job.delivery.finish()
    job.delivery.grant(None)
    assert job.pcm == SOUND[delivered:].tobytes()
    assert all(x.offset >= delivered for x in job.sent if isinstance(x, m.Audio))
    assert job.delivery.sent == 5000


def test_a_resume_does_not_repeat_words_that_were_sent():
    job = Job(resume={"samples": 2400, "crc": crc(SOUND[:2400])})
    words = (Word(0, 1, 0.0, 0.05), Word(2, 3, 0.05, 0.1), Word(4, 5, 0.1, 0.2))
    job.delivery.push(SOUND, words)
    assert job.words == [[4, 5, 2400, 4800]]


def test_a_resume_of_other_samples_sends_nothing():
    job = Job(resume={"samples": 1000, "crc": crc(SOUND[:1000]) ^ 1})
    job.delivery.push(SOUND[:999], (Word(0, 1, 0.0, 1.0),))
    with pytest.raises(ResumeMismatch, match="came out differently"):
        job.delivery.push(SOUND[999:])
    assert job.pcm == b""


def test_a_resume_of_more_than_there_is_sends_nothing():
    job = Job(resume={"samples": 6000, "crc": 0})
    job.delivery.push(SOUND)
    with pytest.raises(ResumeMismatch, match="only 5000 were made again"):
        job.delivery.finish()
    assert job.pcm == b""


def test_where_samples_are_rounded_otherwise_a_resume_goes_on_at_its_place():
    again = SOUND + np.int16(1)
    job = Job(resume={"samples": 1000, "crc": crc(SOUND[:1000])}, rounds=True)
    job.delivery.push(again)
    job.delivery.finish()
    assert job.pcm == again[1000:].tobytes()
    assert job.sent[0].offset == 1000  # type: ignore[attr-defined]


def test_where_samples_are_rounded_otherwise_a_shorter_second_run_ends_the_job():
    job = Job(resume={"samples": 6000, "crc": 0}, rounds=True)
    job.delivery.push(SOUND)
    job.delivery.finish()
    job.delivery.done(cancelled=False)
    (done,) = job.sent
    assert isinstance(done, m.Done)
    assert done.samples == 6000


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class AcceleratorError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("exc", "code", "error"),
    [
        (
            BackendError("no Klingon", code="unsupported_language"),
            "unsupported_language",
            "no Kling",
        ),
        (BackendError("bad"), "synthesis_failed", "bad"),
        (ValueError("x"), "synthesis_failed", "ValueError: x"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (OutOfMemoryError("4 GB"), "out_of_memory", "OutOfMemoryError: 4 GB"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory", "RuntimeError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "Runtime"),
        (SystemExit("no net"), "synthesis_failed", "asked the process to exit ('no net')"),
        (ResumeMismatch("other"), "resume_mismatch", "other"),
    ],
)
def test_an_exception_becomes_a_code_and_a_message(exc, code, error):
    failure = describe(exc)
    assert failure.code == code
    assert error in failure.error
    assert type(exc).__name__ in failure.detail


def test_a_failure_is_short_whatever_the_exception_holds():
    failure = describe(ValueError("x" * 1_000_000))
    assert len(failure.error) <= 1000
    assert len(failure.detail) <= 8000


def test_only_accelerator_errors_end_the_process_and_memory_is_none():
    assert is_device_lost(AcceleratorError("illegal access"))
    assert is_device_lost(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_device_lost(OutOfMemoryError("CUDA error: out of memory"))
    assert not is_device_lost(RuntimeError("CUDA error: out of memory"))
    assert not is_device_lost(RuntimeError("shapes differ"))
    assert is_out_of_memory(OutOfMemoryError())


def test_why_a_file_cannot_be_read_is_told_without_its_path(tmp_path):
    with pytest.raises(OSError, match="secret") as caught:
        (tmp_path / "secret" / "sample.wav").read_bytes()
    assert reason_of(caught.value) == "No such file or directory"
    assert reason_of(ValueError("not a wave")) == "not a wave"
