"""The pool over real workers: they load, make prompts, are replaced and stopped."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.listening import Listener, living, pids, pool_of, run, say, until
from voice_server.core.errors import Draining, NotReady, SynthesisFailed
from voice_server.core.restart import RestartPolicy


def test_what_workers_count_adds_up_also_when_they_are_replaced() -> None:
    async def go() -> None:
        async with pool_of("babble", 2, options={"slots": 2}) as pool:
            told = []
            for _ in range(2):
                for listener in [say(pool, "one two three") for _ in range(4)]:
                    await listener.end()
                told.append(pool.snapshot()["counts"])
                await pool.restart()
            assert 0 < told[0]["frames"] < told[1]["frames"]
            assert told[1]["failures"] == 0

    run(go())


def test_jobs_submitted_before_a_worker_is_ready_wait_for_it() -> None:
    async def go() -> None:
        async with pool_of("tone", 2, wait=False) as pool:
            assert not pool.is_ready
            assert pool.slots == 0
            listeners = [say(pool, "early") for _ in range(5)]
            assert pool.waiting == 5
            for listener in listeners:
                await listener.end()
            assert pool.is_ready

    run(go())


def test_a_rolling_restart_under_load_loses_nothing() -> None:
    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            before = set(pids(pool))
            alone = await say(pool, "one two three four").end()
            listeners: list[Listener] = []
            restart = asyncio.create_task(pool.restart())
            while not restart.done():
                listeners.append(say(pool, "one two three four"))
                await asyncio.sleep(0.005)
                assert pool.is_ready
            await restart
            for listener in listeners:
                assert await listener.end() == alone
            after = set(pids(pool))
            assert len(after) == 2
            assert not before & after
            assert pool.snapshot()["restarts"] == {"restart": 2}

    run(go())


def test_a_rolling_restart_waits_for_streams_that_are_speaking() -> None:
    async def go() -> None:
        async with pool_of("babble", options={"step_ms": 3, "slots": 8}) as pool:
            text = "A long sentence is being spoken while its worker is asked to retire."
            alone = await say(pool, text).end()
            listener = say(pool, text)
            await listener.sound()
            await pool.restart()
            assert listener.is_over
            assert await listener.end() == alone

    run(go())


@pytest.mark.parametrize("size", [1, 2])
def test_two_restarts_at_once_leave_no_worker_too_many(size: int) -> None:
    async def go() -> None:
        async with pool_of("tone", size) as pool:
            before = set(pids(pool))
            await asyncio.gather(pool.restart(), pool.restart())
            await until(lambda: len(pids(pool)) == len(living(pool)) == size)
            assert not before & set(pids(pool))
            assert await say(pool, "one two").end()

    run(go())


def test_a_worker_that_dies_while_it_is_replaced_leaves_no_worker_too_many() -> None:
    async def go() -> None:
        async with pool_of("chaos", options={"load_seconds": 0.5}) as pool:
            (old,) = pids(pool)
            restart = asyncio.create_task(pool.restart())
            await until(lambda: len(living(pool)) == 2)
            os.kill(old, signal.SIGKILL)
            await restart
            await until(lambda: len(pids(pool)) == len(living(pool)) == 1)
            assert await say(pool, "one two").end()

    run(go())


def test_a_restart_that_is_given_up_leaves_no_worker_too_many() -> None:
    async def go() -> None:
        async with pool_of("chaos", options={"load_seconds": 0.5}) as pool:
            before = pids(pool)
            restart = asyncio.create_task(pool.restart())
            await until(lambda: len(living(pool)) == 2)
            restart.cancel()
            await until(lambda: living(pool) == before)

    run(go())


def test_a_pool_whose_workers_died_and_came_back_can_be_restarted_before_a_job_proves_it() -> None:
    """With repaired weights, say: the breaker stays ajar until a job has finished."""

    async def go() -> None:
        policy = RestartPolicy(first_delay=0.01, cool_down=0.05, failures=1, barren_deaths=0)
        async with pool_of("chaos", restart=policy) as pool:
            await say(pool, "exit now").failure()
            await until(lambda: pids(pool) != [] and pool.snapshot()["breaker"] == "half_open")
            before = pids(pool)
            await pool.restart()
            assert len(pids(pool)) == 1
            assert pids(pool) != before

    run(go())


def test_a_stop_with_time_to_drain_finishes_every_job() -> None:
    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            listeners = [say(pool, "one two three") for _ in range(50)]
            await pool.stop(drain=60.0)
            for listener in listeners:
                assert await listener.end()

    run(go())


def test_a_stop_without_it_tells_every_job() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            listeners = [say(pool, "slow " * 50) for _ in range(3)]
            await listeners[0].sound()
            await pool.stop()
            for listener in listeners:
                assert isinstance(await listener.failure(), Draining)
            assert isinstance(await say(pool, "too late").failure(), Draining)
            assert not pool.is_ready

    run(go())


def test_jobs_do_not_wait_for_ever_for_a_worker_that_loads() -> None:
    async def go() -> None:
        options = {"load_seconds": 4.0}
        async with pool_of("chaos", wait=False, patience=0.3, options=options) as pool:
            error = await say(pool, "hello").failure()
            assert isinstance(error, NotReady)
            with pytest.raises(NotReady):
                await pool.prepare({})
            await pool.wait_ready(60.0)
            assert await say(pool, "hello").end()

    run(go())


def test_a_prepared_voice_is_prepared_by_every_worker() -> None:
    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            await pool.prepare({"speaker": "high"})
            with pytest.raises(SynthesisFailed):
                await pool.prepare({"samples": [{"path": "/nowhere.wav"}], "digest": "ab"})
            assert pool.free_slots == 2

    run(go())


def test_a_worker_that_makes_a_prompt_is_lent_again_afterwards() -> None:
    async def go() -> None:
        options = {"slots": 1, "prepare_ms": 300}
        async with pool_of("babble", options=options) as pool:
            prompt = asyncio.create_task(pool.prepare({"design": "a calm voice", "digest": "ab"}))
            await until(lambda: pool.free_slots == 0 or prompt.done())
            listener = say(pool, "Hello.")
            await prompt
            assert await listener.end()

    run(go())


def test_changes_are_announced() -> None:
    async def go() -> None:
        async with pool_of("tone", wait=False) as pool:
            seen: list[tuple[bool, int]] = []
            pool.on_change.append(lambda: seen.append((pool.is_ready, pool.free_slots)))
            await pool.wait_ready()
            listener = say(pool, "one two three")
            await asyncio.sleep(0)
            await listener.end()
            await until(lambda: (True, 0) in seen and seen[-1] == (True, 1))

    run(go())
