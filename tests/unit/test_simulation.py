"""The schedule, the listener's clock and admission together, on a virtual clock."""

from dataclasses import replace
from statistics import quantiles

import pytest

from tests.simulation.simulator import Simulation, World
from voice_server.core.admission import Load, capacity

WORLDS = [
    World(slots=2, rtf=0.2),
    World(slots=4, rtf=0.2),
    World(slots=4, rtf=0.5),
    World(slots=2, rtf=0.05),
    World(slots=1, rtf=0.02),
]
TURN = 16.0  # seconds that a turn lasts, about


def turns_at_once(world):
    return capacity(Load(world.slots, 0, world.rtf))


def p99(values):
    return quantiles(values, n=100)[98]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.slots}x{w.rtf}")
def test_above_capacity_newcomers_are_refused_and_admitted_turns_do_not_stutter(world):
    rate = 5 * turns_at_once(world) / TURN
    outcomes = [Simulation(replace(world, rate=rate, seed=seed)).run() for seed in range(6)]
    admitted = sum(outcome.admitted for outcome in outcomes)
    assert sum(outcome.refused for outcome in outcomes) > admitted / 2
    assert sum(outcome.finished for outcome in outcomes) == admitted
    # A burst of newcomers behind uneven segments can still be heard, in very few turns.
    assert sum(outcome.underruns for outcome in outcomes) <= admitted / 400


@pytest.mark.parametrize("seed", range(4))
def test_below_capacity_nothing_stutters_and_nearly_nobody_is_refused(seed):
    world = World(slots=4, rtf=0.05, seed=seed)
    outcome = Simulation(replace(world, rate=0.5 * turns_at_once(world) / TURN)).run()
    assert outcome.admitted > 100
    assert outcome.refused <= outcome.admitted / 20
    assert outcome.underruns == 0
    assert outcome.finished == outcome.admitted


@pytest.mark.parametrize("seed", range(4))
def test_dying_workers_lose_no_turn_and_are_rarely_heard(seed):
    world = World(slots=4, rtf=0.05, lifetime=20.0, seconds=300, seed=seed)
    outcome = Simulation(replace(world, rate=0.5 * turns_at_once(world) / TURN)).run()
    assert outcome.deaths > 5
    assert outcome.finished == outcome.admitted
    assert outcome.underruns <= outcome.deaths / 5


def test_without_admission_overload_makes_everybody_stutter():
    # The control: what the other tests find is owed to admission, not to a tame world.
    world = World(slots=2, rtf=0.2, rate=5 * 6 / TURN, has_admission=False)
    assert Simulation(world).run().underruns > 100


@pytest.mark.parametrize("seed", range(3))
def test_a_greedy_tenant_costs_the_small_ones_no_more_than_one_segment(seed):
    small = {f"small{i}": 0.01 for i in range(10)}
    world = World(slots=4, rtf=0.05, rate=0.5, tenants=small, seconds=400, seed=seed)
    alone = Simulation(world).run()
    crowded = Simulation(replace(world, rate=8.0, tenants={**small, "greedy": 1.5})).run()
    heard_alone = [t for name in small for t in alone.ttfa[name]]
    heard = [t for name in small for t in crowded.ttfa[name]]
    longest_segment = world.first_chunk + 12.0 * world.rtf
    assert len(heard) > 100
    assert crowded.underruns == 0
    assert p99(heard) <= p99(heard_alone) + longest_segment / 2


def test_the_same_seed_is_the_same_history():
    world = World(rate=1.0, lifetime=10.0, seed=7)
    assert Simulation(world).run() == Simulation(world).run()
