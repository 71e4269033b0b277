"""What a worker may take its time for, and what not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.test_job import WORD, begin, new
from voice_server.workers.deadlines import Answers, Deadlines
from voice_server.workers.process import WorkerSpec

SPEC = WorkerSpec(
    *("tone", Path(sys.executable), Path("backend.py")),
    first_chunk_timeout=2.0,
    gap_timeout=1.0,
    job_timeout=5.0,
    cancel_timeout=0.5,
    ping_interval=3.0,
    ping_timeout=1.0,
)


def test_an_answer_is_late_after_its_limit() -> None:
    answers = Answers(1.0)
    answers.await_one(1)
    assert not answers.is_late(0.6)
    answers.await_one(2)
    assert answers.is_late(0.6)
    answers.came(1)
    assert not answers.is_late(0.3)


def test_the_first_sound_and_the_gap_have_deadlines_of_their_own() -> None:
    deadlines, (job, _) = Deadlines(SPEC), new()
    begin(job)
    assert deadlines.check([job], 1.9, has_credit=False) is None
    job.take_audio(WORD)
    assert deadlines.check([job], 0.9, has_credit=False) is None
    overdue = deadlines.check([job], 0.2, has_credit=False)
    assert overdue is not None
    assert overdue.cause == "hang"


def test_a_worker_that_never_sounds_is_overdue() -> None:
    deadlines, (job, _) = Deadlines(SPEC), new()
    begin(job)
    assert deadlines.check([job], 2.1, has_credit=False) is not None


def test_a_resumed_job_has_time_to_make_again_what_was_delivered() -> None:
    deadlines, (job, _) = Deadlines(SPEC), new()
    begin(job)
    job.take_audio(WORD * 300)  # three seconds
    begin(job)
    assert deadlines.check([job], 4.9, has_credit=False) is None
    assert deadlines.check([job], 0.2, has_credit=False) is not None


def test_a_job_that_sounds_for_ever_is_overdue() -> None:
    deadlines, (job, _) = Deadlines(SPEC), new()
    begin(job)
    for _ in range(10):
        assert deadlines.check([job], 0.5, has_credit=False) is None
        job.take_audio(b"\x00\x00")
    assert deadlines.check([job], 0.5, has_credit=False) is not None


def test_time_spent_waiting_for_credit_does_not_count() -> None:
    deadlines, (job, _) = Deadlines(SPEC), new(credit=0)
    begin(job)
    for _ in range(100):
        assert deadlines.check([job], 0.5, has_credit=True) is None
    job.credit = 100
    assert deadlines.check([job], 1.9, has_credit=True) is None
    assert deadlines.check([job], 0.2, has_credit=True) is not None


def test_an_idle_worker_is_due_for_a_ping_and_has_to_answer() -> None:
    deadlines = Deadlines(SPEC)
    assert deadlines.check([], 2.0, has_credit=False) is None
    assert not deadlines.is_ping_due
    assert deadlines.check([], 1.1, has_credit=False) is None
    assert deadlines.is_ping_due
    deadlines.pings.await_one(1)
    assert not deadlines.is_ping_due
    assert deadlines.check([], 0.9, has_credit=False) is None
    overdue = deadlines.check([], 0.2, has_credit=False)
    assert overdue is not None
    assert "ping" in overdue.what


def test_a_sign_of_life_puts_the_ping_off() -> None:
    deadlines = Deadlines(SPEC)
    for _ in range(10):
        assert deadlines.check([], 2.0, has_credit=False) is None
        deadlines.heard()
        assert not deadlines.is_ping_due


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_cancel_is_answered_in_time_or_the_worker_is_lost(jobs: int) -> None:
    deadlines = Deadlines(SPEC)
    others = [new()[0] for _ in range(jobs)]
    deadlines.cancels.await_one(9)
    assert deadlines.check(others, 0.4, has_credit=False) is None
    overdue = deadlines.check(others, 0.2, has_credit=False)
    assert overdue is not None
    assert overdue.cause == "cancel"
