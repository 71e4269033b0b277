"""Who is guilty when workers die, and for how long a text is refused."""

from voice_server.core.poison import CRASH, KILLED, Blame, Quarantine


def test_a_text_that_crashes_two_workers_at_the_same_place_is_guilty() -> None:
    blame = Blame()
    assert not blame.died(CRASH, 480, suspects=1)
    assert blame.died(CRASH, 480, suspects=1)


def test_a_text_that_got_further_the_second_time_is_not() -> None:
    blame = Blame()
    assert not blame.died(CRASH, 480, suspects=1)
    assert not blame.died(CRASH, 9600, suspects=1)


def test_a_third_lone_crash_convicts_wherever_it_was() -> None:
    blame = Blame()
    assert not blame.died(CRASH, 480, suspects=1)
    assert not blame.died(CRASH, 9600, suspects=1)
    assert blame.died(CRASH, 24000, suspects=1)


def test_kills_from_outside_convict_only_when_there_are_many() -> None:
    blame = Blame()
    assert [blame.died(KILLED, 0, suspects=1) for _ in range(5)] == [*[False] * 4, True]


def test_kills_that_meet_other_workers_as_well_need_to_be_more() -> None:
    blame = Blame()
    # Before each but the first that meets this job, one has met another worker.
    met = [blame.died(KILLED, 0, suspects=1, kills_before=2 * n) for n in range(16)]
    assert not any(met)


def test_a_kill_elsewhere_once_takes_two_more_at_the_same_place() -> None:
    blame = Blame()
    before = [0, 1, *range(3, 8)]  # the third of the pool's workers that was killed was another
    assert [blame.died(KILLED, 0, 1, kills) for kills in before] == [*[False] * 6, True]


def test_kills_before_the_first_that_met_the_job_count_for_nothing() -> None:
    blame = Blame()
    assert [blame.died(KILLED, 0, 1, 100 + n) for n in range(5)] == [*[False] * 4, True]


def test_a_crash_is_no_worse_for_the_kills_before_it() -> None:
    blame = Blame()
    for _ in range(4):
        assert not blame.died(KILLED, 0, suspects=1)
    assert not blame.died(CRASH, 0, suspects=1)
    assert blame.died(CRASH, 0, suspects=1)


def test_kills_from_outside_in_company_are_no_evidence() -> None:
    blame = Blame()
    for _ in range(20):
        assert not blame.died(KILLED, 0, suspects=2)
    assert not blame.died(CRASH, 0, suspects=1)


def test_what_is_not_the_workers_fault_never_convicts() -> None:
    blame = Blame()
    assert not any(blame.died(0.0, 0, suspects=1) for _ in range(50))


def test_jobs_that_died_together_are_not_guilty_before_one_was_alone() -> None:
    blame = Blame()
    assert not any(blame.died(CRASH, 0, suspects=2) for _ in range(10))
    assert blame.died(CRASH, 0, suspects=1)


def test_of_sixty_four_jobs_the_guilty_one_is_alone_after_three_deaths() -> None:
    blame = Blame()
    suspects, deaths = 64, 0
    while not blame.died(CRASH, 0, suspects):
        deaths += 1
        suspects = min(suspects, blame.company)
        assert deaths < 10
    assert deaths == 3


def test_a_first_death_together_keeps_nobody_apart() -> None:
    blame = Blame()
    blame.died(CRASH, 0, suspects=64)
    assert not blame.is_suspect
    blame.died(CRASH, 0, suspects=64)
    assert blame.is_suspect
    assert blame.company == 8


def test_jobs_that_get_on_between_two_deaths_are_not_kept_apart() -> None:
    blame = Blame()
    for reached in range(10):
        blame.died(CRASH, reached, suspects=64)
        assert not blame.is_suspect


def test_a_suspect_that_got_on_is_none_any_more() -> None:
    blame = Blame()
    for reached in (0, 0, 480):
        blame.died(CRASH, reached, suspects=64)
    assert not blame.is_suspect


def test_a_quarantined_text_is_refused_in_that_voice_until_its_time_is_over() -> None:
    quarantine = Quarantine(seconds=600.0)
    quarantine.add("Boom.", "anna", now=0.0)
    assert quarantine.holds("Boom.", "anna", now=599.0)
    assert not quarantine.holds("Boom.", "bert", now=1.0)
    assert not quarantine.holds("Boom!", "anna", now=1.0)
    assert not quarantine.holds("Boom.", "anna", now=600.0)
    assert len(quarantine) == 0


def test_the_quarantine_is_bounded_and_drops_the_oldest() -> None:
    quarantine = Quarantine(size=3)
    for number in range(5):
        quarantine.add(f"text {number}", "anna", now=float(number))
    held = [quarantine.holds(f"text {number}", "anna", now=5.0) for number in range(5)]
    assert held == [False, False, True, True, True]


def test_text_and_voice_are_not_confused() -> None:
    quarantine = Quarantine()
    quarantine.add("ab", "c", now=0.0)
    assert not quarantine.holds("bc", "a", now=0.0)
    assert quarantine.holds("ab", "c", now=0.0)


def test_a_lone_surrogate_can_be_quarantined() -> None:
    quarantine = Quarantine()
    quarantine.add("\ud800", "anna", now=0.0)
    assert quarantine.holds("\ud800", "anna", now=0.0)
