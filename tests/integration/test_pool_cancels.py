"""The pool over real workers: jobs that are cancelled, and listeners that act while they hear."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from tests.listening import Listener, job, pids, pool_of, run, say, until
from voice_server.core.errors import WorkerDied


def test_nothing_is_heard_after_a_cancel_and_the_slot_is_free_again() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            listener = Listener()
            running = job(listener, "slow " * 100)
            pool.submit(running)
            await listener.sound()
            pool.cancel(running)
            heard = len(listener.pcm)
            await until(lambda: pool.free_slots == 1)
            assert len(listener.pcm) == heard
            assert not listener.is_over
            pool.cancel(running)
            assert await say(pool, "next").end()

    run(go())


def test_a_waiting_job_that_is_cancelled_is_never_started() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            first = say(pool, "slow")
            listener = Listener()
            waiting = job(listener, "never")
            pool.submit(waiting)
            pool.cancel(waiting)
            assert pool.waiting == 0
            await first.end()
            await say(pool, "after").end()
            assert listener.starts == 0

    run(go())


def test_cancels_at_any_moment_leave_the_neighbours_untouched_and_no_slot_behind() -> None:
    text = "These are the words that everybody speaks at the same time here."

    async def go() -> None:
        rng = random.Random(7)
        async with pool_of("babble", 2, options={"step_ms": 3, "slots": 8}) as pool:
            alone = await say(pool, text).end()
            stays: list[Listener] = []
            cancelled: list[tuple[Listener, int]] = []
            for _ in range(80):
                stays.append(say(pool, text))
                listener = Listener()
                goes = job(listener, rng.choice([text, None]))
                pool.submit(goes)
                if goes.is_streaming:
                    pool.feed(goes, text[: rng.randrange(len(text))])
                await asyncio.sleep(rng.choice([0.0, 0.002, 0.01]))
                pool.cancel(goes)
                cancelled.append((listener, len(listener.pcm)))
            for listener in stays:
                assert await listener.end() == alone
            for listener, heard in cancelled:
                assert len(listener.pcm) == heard
            await until(lambda: pool.free_slots == 16)
            assert pool.snapshot()["restarts"] == {}

    run(go())


def test_a_listener_may_cancel_and_submit_while_it_hears() -> None:
    async def go() -> None:
        async with pool_of("tone") as pool:
            listener, second = Listener(), Listener()
            first = job(listener, "one two three")

            def interrupt() -> None:
                pool.cancel(first)
                pool.submit(job(second, "four"))

            listener.on_audio = interrupt
            pool.submit(first)
            assert await second.end()
            assert 0 < len(listener.pcm) < 3 * 0.05 * 24000 * 2

    run(go())


@pytest.mark.parametrize("act", ["cancel", "grant", "feed"])
def test_a_listener_may_speak_of_its_job_when_its_end_was_read_with_its_sound(act: str) -> None:
    async def go() -> None:
        async with pool_of("babble", options={"slots": 2, "obeys": True}) as pool:
            listener = Listener()
            streamed = job(listener, None, credit=48_000)
            pool.submit(streamed)
            pool.feed(streamed, "Hello there ")
            if act == "feed":
                pool.feed(streamed, "fail and so on ")
            else:
                pool.end_text(streamed)

            def speak_of_it() -> None:
                match act:
                    case "cancel":
                        pool.cancel(streamed)
                    case "grant":
                        pool.grant(streamed, streamed.credit + 24_000)
                    case "feed":
                        pool.feed(streamed, "more ")

            listener.on_audio = speak_of_it
            # Nothing is read meanwhile: all that the worker says comes in one piece.
            time.sleep(0.3)
            await until(lambda: pool.free_slots == 2)
            assert listener.pcm
            assert listener.is_over == (act != "cancel")
            assert (listener.error is not None) == (act == "feed")
            assert await say(pool, "Next.").end()
            assert pool.snapshot()["restarts"] == {}

    run(go())


def test_a_failure_that_leads_its_listener_to_cancel_the_others_revives_none() -> None:
    async def go() -> None:
        options = {"slots": 4, "step_ms": 5}
        async with pool_of("babble", options=options) as pool:
            deadline = asyncio.get_running_loop().time()
            first = Listener()
            others = [Listener() for _ in range(3)]
            # Without the credit for all of it none has ended before its worker is killed.
            late = "This one is too late to be tried again."
            fails = job(first, late, deadline=deadline, credit=2_400)
            turn = "The others belong to the same turn."
            rest = [job(other, turn, credit=2_400) for other in others]
            for each in (fails, *rest):
                pool.submit(each)
            await first.sound()
            first.on_end = lambda: [pool.cancel(each) for each in rest]
            heard = [len(other.pcm) for other in others]
            os.kill(pids(pool)[0], signal.SIGKILL)
            assert isinstance(await first.failure(), WorkerDied)
            assert (pool.waiting, len(pool.snapshot()["workers"])) == (0, 1)
            await until(lambda: pool.free_slots == 4)
            assert await say(pool, "Next.").end()
            assert not any(other.is_over for other in others)
            assert [len(other.pcm) for other in others] >= heard

    run(go())


def test_a_listener_that_raises_loses_its_own_job_only(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with pool_of("babble", options={"slots": 4}) as pool:
            listener = Listener()

            def fail() -> None:
                raise RuntimeError("socket gone")

            listener.on_audio = fail
            pool.submit(job(listener, "This listener fails at its first sound."))
            other = say(pool, "The other one does not notice.")
            await other.end()
            await until(lambda: pool.free_slots == 4)
            assert not listener.is_over
            assert "socket gone" in caplog.text

    run(go())
