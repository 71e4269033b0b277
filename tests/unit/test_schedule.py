"""Who is next, on a clock that the tests move."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from voice_server.core.schedule import NOT_STARTED, Schedule, SchedulePolicy


@dataclass(eq=False)
class Waiter:
    name: str
    dry_at: float = NOT_STARTED
    tenant: str = ""
    is_speculative: bool = False
    due: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        self.due = lambda: self.dry_at

    @property
    def is_first(self) -> bool:
        return self.dry_at == NOT_STARTED

    def __repr__(self) -> str:
        return self.name


def order(schedule: Schedule[Waiter], now: float) -> list[str]:
    """Everybody, in the order of being popped at one moment, each slot held on."""
    names = []
    while (work := schedule.pop_next(now)) is not None:
        names.append(work.name)
    return names


def filled(*waiters: Waiter, policy: SchedulePolicy | None = None) -> Schedule[Waiter]:
    schedule: Schedule[Waiter] = Schedule(policy)
    schedule.slots = 100
    for waiter in waiters:
        schedule.add(waiter, now=0.0)
    return schedule


def test_the_listener_who_runs_dry_first_is_next() -> None:
    assert order(filled(Waiter("c", 3.0), Waiter("a", 1.0), Waiter("b", 2.0)), 0.5) == [
        "a",
        "b",
        "c",
    ]


def test_streams_that_have_not_started_are_served_first_come_first_served() -> None:
    schedule: Schedule[Waiter] = Schedule()
    for number in range(5):
        schedule.add(Waiter(str(number)), now=number / 10)
    assert order(schedule, 1.0) == ["0", "1", "2", "3", "4"]


def test_a_newcomer_goes_before_everybody_who_has_lead() -> None:
    assert order(filled(Waiter("runs", 0.5), Waiter("new")), 0.0) == ["new", "runs"]


def test_a_listener_about_to_run_dry_goes_before_a_newcomer() -> None:
    policy = SchedulePolicy(start_grace=0.05)
    schedule = filled(Waiter("new"), Waiter("runs", 0.04), policy=policy)
    assert order(schedule, 0.0) == ["runs", "new"]


def test_a_newcomer_who_has_waited_goes_before_one_who_runs_dry_later() -> None:
    policy = SchedulePolicy(start_grace=0.05)
    schedule = filled(Waiter("new"), Waiter("runs", 0.2), policy=policy)
    assert order(schedule, 0.19) == ["new", "runs"]


def test_broken_work_goes_first() -> None:
    schedule = filled(Waiter("dry", -1.0), Waiter("new"))
    schedule.add(Waiter("broken", 5.0), 0.0, is_retry=True)
    assert order(schedule, 0.0) == ["broken", "dry", "new"]


def test_broken_work_that_fits_no_slot_lets_others_pass() -> None:
    schedule = filled(Waiter("new"))
    broken = Waiter("broken")
    schedule.add(broken, 0.0, is_retry=True)
    popped = schedule.pop_next(0.0, lambda work: work is not broken)
    assert popped is not None
    assert popped.name == "new"
    assert schedule.pop_next(0.0, lambda work: work is not broken) is None
    assert schedule.pop_next(0.0, lambda _: True) is broken


def test_speculative_work_runs_only_when_no_real_work_is_due() -> None:
    guess, real = Waiter("guess", is_speculative=True), Waiter("real", 9.0)
    assert order(filled(guess, real), 0.0) == ["real", "guess"]


def test_speculative_work_goes_before_work_that_is_far_ahead() -> None:
    guess, ahead = Waiter("guess", is_speculative=True), Waiter("ahead", 30.0)
    assert order(filled(ahead, guess), 0.0) == ["guess", "ahead"]


def test_confirmed_work_takes_its_place_among_the_real_ones() -> None:
    guess = Waiter("guess", 1.0, is_speculative=True)
    schedule = filled(Waiter("a", 0.5), guess, Waiter("b", 2.0))
    guess.is_speculative = False
    schedule.reconsider(guess, 0.0)
    assert len(schedule) == 3
    assert order(schedule, 0.0) == ["a", "guess", "b"]


def test_nobody_gets_further_ahead_than_the_limit_while_another_waits() -> None:
    policy = SchedulePolicy(lead_limit=5.0)
    schedule = filled(Waiter("ahead", 6.0), Waiter("near", 4.0), policy=policy)
    assert order(schedule, 0.0) == ["near", "ahead"]


def test_a_slot_does_not_idle_because_all_are_far_ahead() -> None:
    assert order(filled(Waiter("b", 200.0), Waiter("a", 100.0)), 0.0) == ["a", "b"]


def test_due_times_that_moved_later_are_found_without_being_told() -> None:
    first, second = Waiter("first", 1.0), Waiter("second", 2.0)
    schedule = filled(first, second)
    first.dry_at = 3.0
    assert order(schedule, 0.0) == ["second", "first"]


def test_due_times_that_moved_earlier_are_found_after_refresh() -> None:
    first, second = Waiter("first", 1.0), Waiter("second", 2.0)
    schedule = filled(first, second)
    second.dry_at = 0.5
    schedule.refresh(0.0)
    assert order(schedule, 0.0) == ["second", "first"]


def test_removed_work_is_not_popped() -> None:
    stays, goes, broken = Waiter("stays"), Waiter("goes"), Waiter("broken")
    schedule = filled(stays, goes)
    schedule.add(broken, 0.0, is_retry=True)
    assert schedule.remove(goes)
    assert schedule.remove(broken)
    assert not schedule.remove(goes)
    assert goes not in schedule
    assert list(schedule) == [stays]
    assert order(schedule, 0.0) == ["stays"]
    assert len(schedule) == 0


def test_work_can_come_back_after_it_was_removed() -> None:
    work = Waiter("work")
    schedule = filled(work)
    schedule.remove(work)
    schedule.add(work, 1.0)
    assert order(schedule, 1.0) == ["work"]
    assert len(schedule) == 0


def test_a_tenant_with_more_than_its_share_of_the_slots_yields_when_slack_is_similar() -> None:
    schedule: Schedule[Waiter] = Schedule()
    schedule.slots = 2
    for number in range(100):
        schedule.add(Waiter(f"greedy{number}", tenant="greedy"), now=0.0)
    for _ in range(20):  # two seconds in which nobody else came
        schedule.pop_next(0.0)
    for tenth in range(1, 21):
        schedule.release("greedy", tenth / 10)
        schedule.pop_next(tenth / 10)
    for number in range(10):
        schedule.add(Waiter(f"small{number}", tenant=f"small{number}"), now=2.0)
    popped = [schedule.pop_next(2.001) for _ in range(10)]
    assert sorted(str(work) for work in popped) == [f"small{number}" for number in range(10)]


def test_a_greedy_tenants_listener_about_to_run_dry_goes_before_lead_of_others() -> None:
    schedule: Schedule[Waiter] = Schedule()
    schedule.slots = 4
    for _ in range(4):
        schedule.take("greedy", 0.0)
    for _ in range(2):
        schedule.release("greedy", 9.0)
    schedule.add(Waiter("greedy", 10.0, tenant="greedy"), 9.0)
    schedule.add(Waiter("small", 18.0, tenant="small"), 9.0)
    assert order(schedule, 10.0) == ["greedy", "small"]


def test_what_a_tenant_used_long_ago_is_forgotten() -> None:
    schedule: Schedule[Waiter] = Schedule()
    schedule.slots = 1
    schedule.take("greedy", 0.0)
    schedule.release("greedy", 10.0)
    schedule.add(Waiter("first", tenant="greedy"), 100.0)
    schedule.add(Waiter("second", tenant="small"), 100.001)
    assert order(schedule, 100.1) == ["first", "second"]


def test_a_tenant_that_is_alone_may_hold_every_slot() -> None:
    schedule: Schedule[Waiter] = Schedule()
    schedule.slots = 2
    for number in range(2):
        schedule.add(Waiter(str(number), tenant="greedy"), 0.0)
    assert order(schedule, 0.0) == ["0", "1"]


def test_a_cap_holds_even_when_slots_idle() -> None:
    schedule: Schedule[Waiter] = Schedule(SchedulePolicy(tenant_slots=0.5))
    schedule.slots = 4
    schedule.take("small", 0.0)
    schedule.release("small", 0.5)
    for number in range(4):
        schedule.add(Waiter(str(number), tenant="greedy"), 0.0)
    assert order(schedule, 0.5) == ["0", "1"]
    assert not schedule.may_run_at_once(Waiter("4", tenant="greedy"), 0.5)
    schedule.release("greedy", 1.0)
    assert order(schedule, 1.0) == ["2"]
    # Nobody else has come for long.
    assert order(schedule, 60.0) == ["3"]


def test_as_many_slots_are_kept_as_others_have_used() -> None:
    """By Erlang's loss formula one in fifty finds 3 taken at a load of 0.6, and 2 at one of 0.22."""
    held = []
    for others in (0.01, 0.3, 0.85, 3.0, 8.0):
        schedule: Schedule[Waiter] = Schedule(SchedulePolicy(memory=1.0))
        schedule.slots = 16
        schedule.take("small", 0.0)
        schedule.release("small", 0.0)
        schedule._usage.average = schedule._tenants["small"].usage.average = others
        for number in range(16):
            schedule.add(Waiter(str(number), tenant="greedy"), 0.0)
        held.append(len(order(schedule, 0.0)))
    assert held == [15, 13, 12, 8, 8]


def test_work_that_may_leave_a_gap_may_take_what_is_kept_from_first_sounds() -> None:
    schedule: Schedule[Waiter] = Schedule()
    schedule.slots = 4
    schedule.take("small", 0.0)
    schedule.release("small", 0.5)
    for number in range(4):
        schedule.add(Waiter(f"new {number}", tenant="greedy"), 1.0)
        schedule.add(Waiter(f"sounds {number}", dry_at=5.0, tenant="greedy"), 1.0)
    assert order(schedule, 1.0) == ["new 0", "new 1", "sounds 0"]


def test_work_need_not_be_queued_when_nobody_waits() -> None:
    schedule: Schedule[Waiter] = Schedule()
    assert schedule.may_run_at_once(Waiter("anyone"), 0.0)
    schedule.add(Waiter("waits"), 0.0)
    assert not schedule.may_run_at_once(Waiter("anyone"), 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_operations_pops_what_a_sorted_list_would(seed: int) -> None:
    """One tenant, all real and near: the schedule is then exactly earliest due time first."""
    rng = random.Random(seed)
    schedule: Schedule[Waiter] = Schedule(SchedulePolicy(lead_limit=1e9))
    schedule.slots = 1000
    waiting: list[Waiter] = []
    for number in range(400):
        match rng.randrange(5):
            case 0 | 1:
                waiting.append(Waiter(str(number), rng.uniform(0.0, 100.0)))
                schedule.add(waiting[-1], 0.0)
            case 2 if waiting:
                rng.choice(waiting).dry_at += rng.uniform(0.0, 10.0)
            case 3 if waiting:
                gone = waiting.pop(rng.randrange(len(waiting)))
                assert schedule.remove(gone)
            case 4 if waiting:
                best = min(waiting, key=lambda w: w.dry_at)
                assert schedule.pop_next(0.0) is best
                waiting.remove(best)
        assert len(schedule) == len(waiting)
    expected = [w.name for w in sorted(waiting, key=lambda w: w.dry_at)]
    assert order(schedule, 0.0) == expected
