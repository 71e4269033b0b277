"""The pool over real workers: jobs, order, text that streams, credit, refusals."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.listening import Listener, job, pids, pool_of, run, say, until
from voice_server.core.errors import (
    ProtocolMistake,
    RequestError,
    SynthesisFailed,
)
from voice_server.core.schedule import NOT_STARTED


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


def test_a_job_is_spoken_on_uvloop_too() -> None:
    import uvloop

    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            listeners = [say(pool, f"one two {n}") for n in range(20)]
            assert len({len(await listener.end()) for listener in listeners}) == 1
            await pool.restart()
            assert await say(pool, "three").end()

    uvloop.run(asyncio.wait_for(go(), 100.0))


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
        limit = 2.5  # beyond what a busy machine keeps a well worker waiting
        settings: dict[str, Any] = {"first_chunk_timeout": limit, "gap_timeout": limit}
        async with pool_of("babble", options={"slots": 4}, **settings) as pool:
            before = pids(pool)
            listener = Listener()
            starved = job(listener, "A sentence that waits for credit.", credit=4800)
            pool.submit(starved)
            thinker = Listener()
            streamed = job(thinker, None)
            pool.submit(streamed)
            pool.feed(streamed, "The model ")
            await asyncio.sleep(limit + 0.7)
            pool.grant(starved, -1)
            pool.feed(streamed, "thinks long.")
            pool.end_text(streamed)
            await listener.end()
            await thinker.end()
            assert pids(pool) == before

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


def test_a_job_that_waits_past_its_deadline_is_told_to_come_again() -> None:
    async def go() -> None:
        async with pool_of("chaos") as pool:
            now = asyncio.get_running_loop().time()
            first = say(pool, "slow " * 15)  # 3 s
            error = await say(pool, "impatient", deadline=now + 0.2).failure()
            assert error.retryable
            await first.end()

    run(go())


def test_what_jobs_cost_is_measured() -> None:
    async def go() -> None:
        async with pool_of("chaos", 2, options={"seconds_per_word": 0.05}) as pool:
            assert pool.capacity().rtf is None
            for _ in range(5):
                await say(pool, "one two three four " * 5).end()  # a second of sound
            capacity = pool.capacity()
            assert capacity.rtf is not None
            assert capacity.first is not None
            assert capacity.streams == pytest.approx(2 / capacity.rtf)
            assert capacity.slots == 2

    run(go())


def test_a_quick_backend_says_so_before_its_first_job() -> None:
    async def go() -> None:
        async with pool_of("tone", 1) as pool:
            rtf = pool.capacity().rtf
            assert rtf is not None
            assert 0.0 < rtf < 1.0

    run(go())
