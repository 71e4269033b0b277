"""Backoff and breaker, on a clock that the tests move."""

import pytest

from voice_server.core.restart import BreakerState, Restart, RestartPolicy


def fail_until_open(restart: Restart, now: float = 0.0) -> tuple[float, list[float]]:
    """Start whenever it is allowed; every start fails at once. Returns when it opened, and starts."""
    starts: list[float] = []
    while True:
        assert restart.may_start(now, starting=0)
        assert len(starts) < 50
        starts.append(now)
        restart.failed(now, "no GPU here")
        if restart.state(now) is BreakerState.OPEN:
            return now, starts
        now = restart.next_start


def test_all_workers_of_a_new_pool_may_start_at_once() -> None:
    restart = Restart()
    assert all(restart.may_start(0.0, starting=n) for n in range(16))


def test_a_first_death_costs_no_delay() -> None:
    restart = Restart()
    restart.ready()
    restart.died(10.0, "SIGKILL", is_barren=False)
    assert restart.may_start(10.0, starting=0)


def test_workers_that_were_killed_a_thousand_times_start_at_once_each_time() -> None:
    restart = Restart()
    for now in range(1000):
        assert restart.may_start(float(now), starting=0)
        restart.ready()
        restart.died(float(now), "SIGKILL", is_barren=False)
    assert restart.state(1000.0) is BreakerState.CLOSED


def test_failed_starts_are_repeated_one_at_a_time_after_growing_delays() -> None:
    restart = Restart(RestartPolicy(failures=100), seed=1)
    now, delays = 0.0, []
    for _ in range(12):
        restart.failed(now, "no GPU here")
        assert not restart.may_start(now, starting=0)
        delays.append(restart.next_start - now)
        now = restart.next_start
        assert restart.may_start(now, starting=0)
        assert not restart.may_start(now, starting=1)
    for number, delay in enumerate(delays):
        most = min(0.5 * 2**number, 30.0)
        assert most / 2 <= delay <= most


def test_the_delays_of_two_servers_differ() -> None:
    delays = set()
    for seed in range(10):
        restart = Restart(seed=seed)
        restart.failed(0.0, "no GPU here")
        delays.add(restart.next_start)
    assert len(delays) == 10


@pytest.mark.parametrize("seed", range(20))
def test_after_five_failed_starts_in_a_minute_there_is_no_sixth(seed: int) -> None:
    restart = Restart(seed=seed)
    opened, starts = fail_until_open(restart)
    assert len(starts) == 5
    assert opened < 60.0
    assert not restart.may_start(opened + 59.0, starting=0)
    assert restart.reason == "no GPU here"


def test_five_workers_that_fail_together_open_the_breaker_too() -> None:
    restart = Restart()
    for _ in range(5):
        restart.failed(1.0, "no GPU here")
    assert restart.state(1.0) is BreakerState.OPEN


def test_slow_failures_never_open_the_breaker_but_keep_their_delay() -> None:
    restart = Restart()
    for now in range(0, 1000, 31):
        restart.failed(float(now), "out of memory")
        assert restart.state(float(now)) is BreakerState.CLOSED
    assert restart.next_start >= now + 15.0


def test_workers_killed_while_they_load_have_two_tries_before_that_counts() -> None:
    restart = Restart()
    for _ in range(2):
        restart.failed(0.0, "SIGKILL", was_killed=True)
        assert restart.may_start(0.0, starting=1)
    for _ in range(5):
        restart.failed(0.0, "SIGKILL", was_killed=True)
    assert restart.state(0.0) is BreakerState.OPEN


def test_half_open_tries_once_and_a_success_closes() -> None:
    restart = Restart()
    opened, _ = fail_until_open(restart)
    later = opened + 61.0
    assert restart.state(later) is BreakerState.HALF_OPEN
    assert restart.may_start(later, starting=0)
    assert not restart.may_start(later, starting=1)
    restart.ready()
    assert restart.state(later) is BreakerState.CLOSED
    assert restart.may_start(later, starting=3)
    assert restart.reason == ""


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    restart = Restart()
    now, _ = fail_until_open(restart)
    waits = []
    for _ in range(6):
        waits.append(restart.next_start - now)
        now = restart.next_start
        restart.failed(now, "still no GPU")
    assert waits == pytest.approx([60.0, 120.0, 240.0, 480.0, 600.0, 600.0])


def test_a_success_forgets_earlier_failures() -> None:
    restart = Restart()
    for now in range(4):
        restart.failed(float(now), "flaky")
    restart.ready()
    for now in range(4, 8):
        restart.failed(float(now), "flaky")
    assert restart.state(8.0) is BreakerState.CLOSED


def test_workers_that_load_but_die_at_every_first_job_open_the_breaker() -> None:
    restart = Restart()
    now, deaths = 0.0, 0
    while restart.state(now) is not BreakerState.OPEN:
        now = max(now, restart.next_start)
        restart.ready()
        restart.died(now, "SIGSEGV", is_barren=True)
        deaths += 1
        assert deaths < 100
    assert deaths == 9
    # The probe loads as all of them did: that proves nothing, one job does.
    later = restart.next_start
    restart.ready()
    assert restart.state(later) is BreakerState.HALF_OPEN
    restart.proved()
    assert restart.state(later) is BreakerState.CLOSED


def test_a_finished_job_forgets_barren_deaths() -> None:
    restart = Restart()
    for now in range(100):
        restart.ready()
        restart.died(float(now), "SIGSEGV", is_barren=True)
        if now % 4 == 3:
            restart.proved()
        assert restart.may_start(float(now), starting=1)
