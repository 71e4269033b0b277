"""What a pool's jobs cost, averaged."""

import pytest

from voice_server.workers.load import Load


def test_a_pool_that_has_spoken_nothing_knows_nothing() -> None:
    capacity = Load().capacity(3, is_paced=False)
    assert (capacity.rtf, capacity.first, capacity.streams) == (None, None, 3.0)


def test_a_pool_twice_as_fast_as_real_time_serves_two_listeners_a_slot() -> None:
    load = Load()
    for _ in range(10):
        load.add(0.5, 1.0, 0.1)
    capacity = load.capacity(3, is_paced=False)
    assert capacity.rtf == pytest.approx(0.5)
    assert capacity.first == pytest.approx(0.1)
    assert capacity.streams == pytest.approx(6.0)


def test_long_jobs_count_for_more_than_short_ones() -> None:
    load = Load()
    load.add(10.0, 10.0, None)
    load.add(0.01, 0.1, None)
    rtf = load.capacity(1, is_paced=False).rtf
    assert rtf is not None
    assert rtf > 0.9


def test_what_was_long_ago_fades() -> None:
    load = Load()
    load.add(10.0, 1.0, 5.0)
    for _ in range(200):
        load.add(0.1, 1.0, 0.2)
    capacity = load.capacity(1, is_paced=False)
    assert capacity.rtf == pytest.approx(0.1, abs=0.01)
    assert capacity.first == pytest.approx(0.2, abs=0.01)


def test_jobs_paced_by_credit_are_one_listener_a_slot() -> None:
    load = Load()
    load.add(10.0, 10.0, 0.1)
    assert load.capacity(32, is_paced=True).streams == 32.0


def test_a_word_that_took_long_tells_nothing_of_the_backend() -> None:
    load = Load()
    load.add(1.0, 0.05, None)
    assert load.capacity(1, is_paced=False).rtf is None
    for _ in range(200):
        load.add(0.005, 0.05, None)
    assert load.capacity(1, is_paced=False).rtf == pytest.approx(0.1, abs=0.02)


def test_silence_counts_for_nothing() -> None:
    load = Load()
    load.add(1.0, 0.0, None)
    assert load.capacity(1, is_paced=False).rtf is None


def test_what_a_backend_says_of_itself_counts_until_its_jobs_tell() -> None:
    load = Load()
    load.assume(None)
    assert load.capacity(1, is_paced=False).rtf is None
    load.assume(0.002)
    assert load.capacity(1, is_paced=False).rtf == pytest.approx(0.002)
    for _ in range(200):
        load.add(0.1, 1.0, None)
    load.assume(0.002)  # a worker that came later
    assert load.capacity(1, is_paced=False).rtf == pytest.approx(0.1, abs=0.01)
