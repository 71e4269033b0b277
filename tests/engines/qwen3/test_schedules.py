"""Whatever joins, leaves, waits and is cancelled: every turn says what it says alone.

Two thousand schedules. Each picks turns from a fixed set, cuts their text, and interleaves
admissions, text, steps over part of the turns (credit) and cancels at random.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from driving import Request, Spoken, engine_of, speak, step
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from voice_worker.backend import Voice

TEXTS = ("hi there", "the quick brown fox", "a b c. d e f. g", "world?", "")
REQUESTS = [
    Request(text, Voice(speaker=speaker), {"temperature": heat, "language": tag}, seed)
    for seed, (text, speaker, heat, tag) in enumerate(
        (text, speaker, heat, tag)
        for text in TEXTS
        for speaker, heat, tag in (("ryan", 0.9, "en"), ("dylan", 0, "auto"), ("ryan", 0.6, "zh"))
    )
]
SLOTS = 3
seen: Counter[str] = Counter()


@pytest.fixture(scope="module")
def engine(swift):
    # Quick to end: a schedule's worth is in its joins and leaves.
    made = engine_of(swift, slots=SLOTS, frames_per_token=1.0, pipelined=True, quiet_rows=0)
    made.parts.frames.dense_from = 2
    return made


@pytest.fixture(scope="module")
def alone(swift):
    fresh = engine_of(swift, slots=1, frames_per_token=1.0)
    return [speak(fresh, request) for request in REQUESTS]


schedules = st.lists(
    st.tuples(
        st.sampled_from(["admit", "feed", "feed", "step", "step", "step", "cancel"]),
        st.integers(0, 10**6),
    ),
    min_size=4,
    max_size=24,
)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedules)
def test_every_turn_says_what_it_says_alone(engine, alone, schedule):
    turns: dict[int, int] = {}
    spoken: dict[int, Spoken] = {}
    text: dict[int, str] = {}
    over: set[int] = set()

    def live():
        return [job for job in turns if job in engine._streams]

    def feed(job, number):
        size = number % 9
        if text[job]:
            engine.feed(job, text[job][: size + 1])
            text[job] = text[job][size + 1 :]
        else:
            engine.finish_text(job)
            over.add(job)

    for action, number in schedule:
        if action == "admit" and len(live()) < SLOTS:
            job, which = len(turns), number % len(REQUESTS)
            request = REQUESTS[which]
            engine.admit(job, request.voice, request.params, request.seed)
            turns[job], spoken[job], text[job] = which, Spoken(), request.text
        elif action == "step":
            step(engine, [job for job in live() if (number >> job % 8) & 1], spoken)
        elif action == "feed" and (open_ := [job for job in live() if job not in over]):
            feed(open_[number % len(open_)], number // 7)
        elif action == "cancel" and number % 3 == 0 and (some := live()):
            engine.cancel(some[number % len(some)])
            seen["cancelled"] += 1
    # Let the rest finish, so that the next schedule starts with every slot free.
    for _ in range(1000):
        for job in live():
            if job not in over:
                feed(job, 8)
        step(engine, live(), spoken)
        if not live():
            break
    assert sorted(engine._free) == list(range(SLOTS))

    for job, which in turns.items():
        record, reference = spoken[job], alone[which]
        assert record.error is None
        samples = record.samples
        if record.is_finished:
            seen["finished"] += 1
            assert record.pieces == reference.pieces
            assert len(samples) == len(reference.samples)
        np.testing.assert_allclose(samples, reference.samples[: len(samples)], atol=1e-7)
    event(f"turns: {min(len(turns), 6)}")


def test_the_schedules_reached_what_they_are_meant_to_reach(alone):
    assert seen["finished"] > 1000
    assert seen["cancelled"] > 200
    assert sum(record.is_finished for record in alone) == len(REQUESTS)
    assert sum(len(record.frames) > 3 for record in alone) > len(REQUESTS) // 2
