"""The pool over real workers: jobs, order, text that streams, credit, cancels, replacement."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from typing import Any

import pytest

from tests.listening import Listener, job, pids, pool_of, run, say, until
from voice_server.core.errors import (
    Draining,
    NotReady,
    ProtocolMistake,
    RequestError,
    SynthesisFailed,
    WorkerDied,
)
from voice_server.core.schedule import NOT_STARTED

PACED = {"step_ms": 3, "slots": 8}  # a babble that takes long enough to be disturbed


def test_a_job_is_spoken_with_its_words() -> None:
    async def go() -> None:
        async with pool_of("tone") as pool:
            listener = say(pool, "one two three")
            pcm = await listener.end()
            assert len(pcm) // 2 == pytest.approx(3 * 0.05 * 24000, abs=4)
            assert [word[:2] for word in listener.word_list] == [[0, 3], [4, 7], [8, 13]]
            assert listener.starts == 1
            assert {"waited", "first", "total"} <= listener.timing.keys()
            assert pool.info is not None
            assert pool.info.speakers[0].id == "low"

    run(go())


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


def test_a_job_is_spoken_on_uvloop_too() -> None:
    import uvloop

    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            listeners = [say(pool, f"one two {n}") for n in range(20)]
            assert len({len(await listener.end()) for listener in listeners}) == 1
            await pool.restart()
            assert await say(pool, "three").end()

    uvloop.run(asyncio.wait_for(go(), 100.0))


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


def test_more_jobs_than_slots_are_all_spoken_and_the_slots_are_free_again() -> None:
    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            alone = [await say(pool, "word " * n).end() for n in range(1, 6)]
            listeners = [say(pool, "word " * (n % 5 + 1)) for n in range(100)]
            assert pool.is_contended
            for n, listener in enumerate(listeners):
                assert await listener.end() == alone[n % 5]
            assert (pool.free_slots, pool.slots, pool.waiting) == (2, 2, 0)

    run(go())


def test_who_runs_dry_first_is_spoken_first() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            now = asyncio.get_running_loop().time()
            first = say(pool, "slow slow")
            ended: list[str] = []
            dues = {"late": now + 8.0, "soon": now + 1.0, "new": NOT_STARTED, "middle": now + 4.0}
            listeners = []
            for name, due in dues.items():
                listeners.append(say(pool, name, due=lambda due=due: due))
                listeners[-1].on_audio = lambda name=name: ended.append(name)
            guess = job(Listener(), "guess", speculative=True)
            guess.sink.on_audio = lambda: ended.append("guess")  # type: ignore[attr-defined]
            sure = job(Listener(), "sure", speculative=True, due=lambda: now + 2.0)
            sure.sink.on_audio = lambda: ended.append("sure")  # type: ignore[attr-defined]
            pool.submit(guess)
            pool.submit(sure)
            pool.confirm(sure)
            await first.end()
            await until(lambda: len(ended) == 6)
            assert ended == ["new", "soon", "sure", "middle", "late", "guess"]

    run(go())


def test_due_times_that_moved_are_heeded_after_a_poke() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            now = asyncio.get_running_loop().time()
            dues = {"a": now + 5.0, "b": now + 6.0}
            first = say(pool, "slow slow")
            ended: list[str] = []
            for name in dues:
                say(pool, name, due=lambda name=name: dues[name]).on_audio = lambda name=name: (
                    ended.append(name)
                )
            dues["b"] = now
            pool.poke()
            await first.end()
            await until(lambda: len(ended) == 2)
            assert ended == ["b", "a"]

    run(go())


def test_text_that_streams_sounds_the_same_however_it_is_cut() -> None:
    text = "Every word of this is fed in pieces, cut anywhere at all. And it ends here."

    async def go() -> None:
        async with pool_of("babble", options={"slots": 8}) as pool:
            rng = random.Random(1)
            heard = set()
            for _ in range(8):
                listener = Listener()
                streamed = job(listener, None)
                pool.submit(streamed)
                at = 0
                while at < len(text):
                    step = rng.randint(1, 9)
                    pool.feed(streamed, text[at : at + step])
                    at += step
                    if rng.random() < 0.3:
                        await asyncio.sleep(0.002)
                pool.end_text(streamed)
                heard.add(await listener.end())
                assert [text[a:b] for a, b, _, _ in listener.word_list] == text.split()
            whole = await say(pool, text).end()
            assert heard == {whole}

    run(go())


def test_text_after_the_end_of_text_is_refused() -> None:
    async def go() -> None:
        async with pool_of("babble") as pool:
            listener = Listener()
            streamed = job(listener, None)
            pool.submit(streamed)
            pool.feed(streamed, "Hello.")
            pool.end_text(streamed)
            pool.end_text(streamed)
            with pytest.raises(ProtocolMistake):
                pool.feed(streamed, " More.")
            await listener.end()
            pool.feed(streamed, "Over anyway.")
            pool.end_text(streamed)

    run(go())


def test_a_job_sends_no_more_than_its_credit() -> None:
    async def go() -> None:
        async with pool_of("babble", options={"slots": 4}) as pool:
            listener = Listener()
            slow = job(listener, "A sentence of some length, for two seconds at least.", credit=0)
            pool.submit(slow)
            await say(pool, "Another one, who has credit.").end()
            assert not listener.pcm
            for credit in (5000, 24_000, 12_000):
                pool.grant(slow, credit)
                await until(lambda: len(listener.pcm) // 2 == slow.credit)
                await asyncio.sleep(0.02)
                assert len(listener.pcm) // 2 == slow.credit
            assert slow.credit == 24_000
            pool.grant(slow, -1)
            pool.grant(slow, 30_000)
            assert await listener.end()

    run(go())


def test_a_job_waiting_for_credit_or_text_is_not_taken_for_hung() -> None:
    async def go() -> None:
        settings: dict[str, Any] = {
            "first_chunk_timeout": 0.3,
            "gap_timeout": 0.3,
            "job_timeout": 3.0,
        }
        async with pool_of("babble", options={"slots": 4}, **settings) as pool:
            before = pids(pool)
            listener = Listener()
            starved = job(listener, "A sentence that waits for credit.", credit=4800)
            pool.submit(starved)
            thinker = Listener()
            streamed = job(thinker, None)
            pool.submit(streamed)
            pool.feed(streamed, "The model ")
            await asyncio.sleep(1.0)
            pool.grant(starved, -1)
            pool.feed(streamed, "thinks long.")
            pool.end_text(streamed)
            await listener.end()
            await thinker.end()
            assert pids(pool) == before

    run(go())


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
        async with pool_of("babble", 2, options=PACED) as pool:
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
            fails = job(first, "This one is too late to be tried again.", deadline=deadline)
            rest = [job(other, "The others belong to the same turn.") for other in others]
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


def test_a_text_the_backend_refuses_fails_alone_and_the_worker_lives() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            before = pids(pool)
            error = await say(pool, "hello refuse").failure()
            assert isinstance(error, SynthesisFailed)
            assert error.code == "unsupported_language"
            error = await say(pool, "oom").failure()
            assert (error.code, error.retryable) == ("out_of_memory", True)
            assert await say(pool, "fine").end()
            assert pids(pool) == before

    run(go())


@pytest.mark.parametrize(
    ("text", "params"),
    [("x" * 2_000_000, {}), ("fine", {"speed": object()}), ("fine", {"speed": 1 << 80})],
)
def test_what_cannot_be_sent_to_a_worker_fails_at_once(text: str, params: dict[str, Any]) -> None:
    async def go() -> None:
        async with pool_of("tone") as pool:
            assert isinstance(await say(pool, text, params=params).failure(), RequestError)
            assert await say(pool, "fine").end()
            assert pool.free_slots == 1

    run(go())


def test_a_lone_surrogate_is_spoken_as_something() -> None:
    async def go() -> None:
        async with pool_of("tone") as pool:
            assert await say(pool, "a \ud800 b").end()

    run(go())


def test_a_long_text_streams_in_one_go() -> None:
    async def go() -> None:
        text = "word " * 20_000
        async with pool_of("babble", options={"slots": 2, "chars_per_second": 4000}) as pool:
            listener = Listener()
            streamed = job(listener, None)
            pool.submit(streamed)
            pool.feed(streamed, text)
            pool.end_text(streamed)
            await listener.end()
            assert len(listener.word_list) == 20_000

    run(go())


def test_streaming_text_to_a_backend_of_whole_segments_is_a_mistake() -> None:
    async def go() -> None:
        async with pool_of("tone") as pool:
            assert isinstance(await say(pool, None).failure(), RequestError)

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
        async with pool_of("babble", options=PACED) as pool:
            text = "A long sentence is being spoken while its worker is asked to retire."
            alone = await say(pool, text).end()
            listener = say(pool, text)
            await listener.sound()
            await pool.restart()
            assert listener.is_over
            assert await listener.end() == alone

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


def test_a_job_that_waits_past_its_deadline_is_told_to_come_again() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            now = asyncio.get_running_loop().time()
            first = say(pool, "slow " * 5)
            error = await say(pool, "impatient", deadline=now + 0.2).failure()
            assert error.retryable
            await first.end()

    run(go())


def test_jobs_do_not_wait_for_ever_for_a_worker_that_loads() -> None:
    async def go() -> None:
        async with pool_of(
            "chaos", wait=False, patience=0.3, options={"load_seconds": 1.2}
        ) as pool:
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


def test_what_jobs_cost_is_measured() -> None:
    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            assert pool.capacity().rtf is None
            for _ in range(5):
                await say(pool, "one two three four").end()
            capacity = pool.capacity()
            assert capacity.rtf is not None
            assert capacity.first is not None
            assert capacity.streams == pytest.approx(2 / capacity.rtf)
            assert capacity.slots == 2

    run(go())
