"""What listeners hear when workers die, hang or lie: nothing of it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.listening import Listener, job, living, pids, pool_of, run, say, spec, until
from voice_server.core.errors import PoisonText, WorkerDied, WorkerStartError
from voice_server.core.restart import RestartPolicy
from voice_server.workers.pool import WorkerPool

TEXT = "These are the words that everybody speaks while workers die around them."
PATIENT = RestartPolicy(barren_deaths=1000)
QUICK = RestartPolicy(first_delay=0.05, cool_down=0.5, failures=3)


def busy(pool: WorkerPool) -> int:
    """The worker that has a job."""
    (pid,) = (w["pid"] for w in pool.snapshot()["workers"] if w["jobs"])
    return int(pid)


def backend_file(folder: Path, methods: str) -> Path:
    """A backend of 24 kHz with these methods."""
    entry = folder / "backend.py"
    head = """\
import os, time
import numpy as np
from voice_worker import Backend, BackendInfo, serve

class Odd(Backend):
    name = "odd"
    def load(self, options):
        return BackendInfo(sample_rate=24000)
"""
    body = textwrap.indent(textwrap.dedent(methods), "    ")
    entry.write_text(f"{head}{body}\nserve(Odd())\n")
    return entry


async def kill_at_random(
    pool: WorkerPool, rng: random.Random, signals: list[signal.Signals], pause: float
) -> None:
    for number in signals:
        await asyncio.sleep(rng.uniform(0.2, 1.8) * pause)
        await until(lambda: bool(pids(pool)))
        victim = rng.choice(pids(pool))
        os.kill(victim, number)
        # Each is to die once, however long a busy machine takes over it.
        await until(lambda victim=victim: victim not in pids(pool))


@pytest.mark.parametrize("backend", ["tone", "babble"])
def test_random_kills_under_fifty_streams_change_not_one_byte(backend: str) -> None:
    signals = [signal.SIGKILL] * 7
    # Apart from each other: two crashes of one text at one place would convict it, and rightly so.
    signals[1] = signals[5] = signal.SIGSEGV
    options = {"step_ms": 2, "slots": 40} if backend == "babble" else {"seconds_per_word": 0.3}
    texts = [f"{TEXT} And this is number {n}, which ends here." for n in range(50)]

    async def stream(pool: WorkerPool, n: int, stop: Callable[[], bool]) -> None:
        """One listener after another with the same text, each compared with the undisturbed."""
        expected = alone[n]
        while True:
            listener = say(pool, texts[n])
            assert await listener.end() == expected
            assert listener.word_list == words[n]
            if stop():
                return
            await asyncio.sleep(0.05)

    async def go() -> None:
        async with pool_of(backend, 2, options=options) as pool:
            for listener in [say(pool, text) for text in texts]:
                alone.append(await listener.end())
                words.append(listener.word_list)
            rng = random.Random(3)
            killer = asyncio.create_task(kill_at_random(pool, rng, signals, 0.4))
            await asyncio.gather(*(stream(pool, n, killer.done) for n in range(50)))
            assert sum(pool.snapshot()["restarts"].values()) == len(signals)

    alone: list[bytes] = []
    words: list[list[list[int]]] = []
    run(go())


def test_a_stream_whose_text_still_arrives_survives_the_death_of_its_worker() -> None:
    async def go() -> None:
        async with pool_of("babble", 2, options={"step_ms": 2, "slots": 8}) as pool:
            alone = await say(pool, TEXT * 3).end()
            listener = Listener()
            streamed = job(listener, None)
            pool.submit(streamed)
            rng = random.Random(5)
            for at, piece in enumerate(textwrap.wrap(TEXT * 3, 7, drop_whitespace=False)):
                pool.feed(streamed, piece)
                await asyncio.sleep(0.02)
                if at in (9, 20):
                    await listener.sound()
                    os.kill(rng.choice(pids(pool)), signal.SIGKILL)
                    await until(lambda: len(pids(pool)) == 2)
            pool.end_text(streamed)
            assert await listener.end() == alone

    run(go())


def test_a_dead_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    misdeeds = ("exit", "segfault", "abort", "kill", "garbage", "cudalost")
    texts = [f"{misdeed}once first of all" for misdeed in misdeeds]
    texts += [f"in the middle {misdeed}once of it" for misdeed in misdeeds]

    async def go() -> None:
        options = {"state_dir": str(tmp_path)}
        async with pool_of("chaos", 2, options=options, restart=PATIENT) as pool:
            listeners = [say(pool, text) for text in texts]
            heard = [await listener.end() for listener in listeners]
            for text, listener in zip(texts, listeners, strict=True):
                assert [text[a:b] for a, b, _, _ in listener.word_list] == text.split()
            assert sum(pool.snapshot()["restarts"].values()) == len(texts)
            again = [say(pool, text) for text in texts]
            assert [await listener.end() for listener in again] == heard
            await until(lambda: pool.free_slots == 2)

    run(go())


@pytest.mark.parametrize("misdeed", ["hang", "spin", "stop"])
def test_a_worker_that_hangs_is_found_and_its_job_goes_on_elsewhere(
    misdeed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    texts = [f"{misdeed}once first of all", f"in the middle {misdeed}once of it"]

    async def go() -> None:
        # Long beside what a busy machine may keep a well worker waiting.
        settings: dict[str, Any] = {"first_chunk_timeout": 2.5, "gap_timeout": 2.5}
        options = {"state_dir": str(tmp_path)}
        async with pool_of("chaos", 2, options=options, restart=PATIENT, **settings) as pool:
            listeners = [say(pool, text) for text in texts]
            heard = [await listener.end() for listener in listeners]
            await until(lambda: pool.snapshot()["restarts"] == {"hang": 2})
            again = [say(pool, text) for text in texts]
            assert [await listener.end() for listener in again] == heard
            await until(lambda: pool.free_slots == 2)

    run(go())
    if misdeed != "stop":  # a stopped process cannot show its stacks
        assert "misdeeds.py" in caplog.text


def test_an_idle_worker_that_is_stopped_is_found_by_a_ping() -> None:
    async def go() -> None:
        async with pool_of("tone", ping_interval=0.1, ping_timeout=2.0) as pool:
            before = pids(pool)
            await asyncio.sleep(2.5)  # longer than an answer may take
            assert pids(pool) == before
            os.kill(before[0], signal.SIGSTOP)
            await until(lambda: pids(pool) not in ([], before))
            assert await say(pool, "well again").end()

    run(go())


def test_a_worker_that_does_not_answer_a_cancel_is_replaced() -> None:
    async def go() -> None:
        async with pool_of("chaos", cancel_timeout=0.3) as pool:
            before = pids(pool)
            listener = Listener()
            hangs = job(listener, "one hang")
            pool.submit(hangs)
            await listener.sound()
            pool.cancel(hangs)
            assert pool.free_slots == 0
            assert await say(pool, "next").end()
            assert pids(pool) != before
            assert not listener.is_over

    run(go())


def test_other_sound_from_the_second_worker_is_cut_in_at_a_word() -> None:
    text = f"one random three {'slow ' * 12}last"
    words = text.split()

    async def go() -> None:
        async with pool_of("chaos", 2) as pool:
            listener = Listener()
            running = job(listener, text)
            pool.submit(running)
            await until(lambda: len(listener.pcm) >= 3 * 480)
            os.kill(busy(pool), signal.SIGKILL)
            heard = await listener.end()
            # Three words or more of the first worker, the rest of the second; none lost, none twice.
            assert running.attempt == 3
            assert len(heard) == len(words) * 480
            assert [text[a:b] for a, b, _, _ in listener.word_list] == words
            assert [w[2:] for w in listener.word_list] == [
                [n * 240, n * 240 + 240] for n in range(len(words))
            ]

    run(go())


def test_without_word_timings_the_rest_is_lost_and_the_error_says_after_how_much(
    tmp_path: Path,
) -> None:
    entry = backend_file(
        tmp_path,
        """
        def synthesize(self, job):
            yield np.frombuffer(os.urandom(480), dtype=np.int16)
            time.sleep(600)
        """,
    )

    async def go() -> None:
        async with pool_of(spec("odd", entry=entry), 2) as pool:
            listener = say(pool, "hello")
            await listener.sound()
            os.kill(busy(pool), signal.SIGKILL)
            error = await listener.failure()
            assert isinstance(error, WorkerDied)
            assert error.delivered_samples == 240

    run(go())


def test_a_text_that_kills_two_workers_is_refused_afterwards() -> None:
    async def go() -> None:
        async with pool_of("chaos", 2) as pool:
            listener = say(pool, "one exit two")
            assert isinstance(await listener.failure(), PoisonText)
            assert len(listener.pcm) == 480
            await until(lambda: pool.free_slots == 2)
            assert pool.snapshot()["restarts"] == {"crash": 2}
            again = say(pool, "one exit two")
            assert again.is_over
            assert isinstance(await again.failure(), PoisonText)
            assert pool.snapshot()["restarts"] == {"crash": 2}
            assert await say(pool, "one two").end()

    run(go())


def test_of_many_jobs_on_one_worker_only_the_guilty_one_fails() -> None:
    async def go() -> None:
        options = {"step_ms": 1, "slots": 16, "obeys": True}
        async with pool_of("babble", 2, options=options, restart=QUICK) as pool:
            alone = [await say(pool, f"{TEXT} {n}").end() for n in range(12)]
            listeners = [say(pool, f"{TEXT} {n}") for n in range(12)]
            guilty = say(pool, "This text will make its worker exit now.")
            assert isinstance(await guilty.failure(), PoisonText)
            for n, listener in enumerate(listeners):
                assert await listener.end() == alone[n]
            assert isinstance(
                await say(pool, "This text will make its worker exit now.").failure(), PoisonText
            )

    run(go())


def test_a_streamed_text_that_kills_is_refused_when_it_is_streamed_again() -> None:
    async def go() -> None:
        async with pool_of("babble", 2, options={"slots": 4, "obeys": True}) as pool:
            for number in range(2):
                listener = Listener()
                streamed = job(listener, None)
                pool.submit(streamed)
                for piece in ("Go ", "exit ", "now."):
                    pool.feed(streamed, piece)
                pool.end_text(streamed)
                assert isinstance(await listener.failure(), PoisonText)
                if number == 0:
                    restarts = pool.snapshot()["restarts"]
            assert pool.snapshot()["restarts"] == restarts

    run(go())


def test_nothing_is_tried_again_after_the_deadline() -> None:
    async def go() -> None:
        async with pool_of("chaos", 2, first_chunk_timeout=0.5) as pool:
            deadline = asyncio.get_running_loop().time() + 0.3
            error = await say(pool, "hang", deadline=deadline).failure()
            assert isinstance(error, WorkerDied)
            assert "too late" in str(error)

    run(go())


def test_a_backend_that_never_loads_opens_the_breaker_and_says_why() -> None:
    async def go() -> None:
        options = {"refuse": True}
        async with pool_of("chaos", 2, wait=False, options=options, restart=QUICK) as pool:
            waiting = say(pool, "hello")
            error = await waiting.failure()
            assert isinstance(error, WorkerStartError)
            assert "no GPU here" in str(error)
            assert "library banner" in str(error)  # the last lines it printed
            snapshot = pool.snapshot()
            assert snapshot["breaker"] in ("open", "half_open")
            assert snapshot["restarts"]["load"] >= 3
            assert "no GPU here" in pool.last_error
            assert not pool.is_ready
            at_once = say(pool, "hello")
            assert at_once.is_over or pool.snapshot()["breaker"] == "half_open"

    run(go())


def test_a_backend_that_refuses_to_load_in_its_own_words_is_not_quoted_further() -> None:
    async def go() -> None:
        options = {"refuse": "wrong_model"}
        async with pool_of("chaos", 1, wait=False, options=options, restart=QUICK) as pool:
            error = await say(pool, "hello").failure()
            assert str(error).endswith("could not load: no GPU here")

    run(go())


def test_start_tells_the_caller_who_waits_for_it() -> None:
    async def go() -> None:
        for settings in ({"options": {"refuse": True}}, {"options": {"load_exit": 3}}):
            with pytest.raises(WorkerStartError, match=r"no GPU here|code 3"):
                async with pool_of("chaos", restart=QUICK, **settings):
                    pass

    run(go())


def test_the_breaker_closes_when_the_cause_is_gone(tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    entry = backend_file(
        tmp_path,
        f"""
        def load(self, options):
            if not os.path.exists({str(cure)!r}):
                raise RuntimeError("ill")
            return BackendInfo(sample_rate=24000)

        def synthesize(self, job):
            yield np.zeros(240, dtype=np.int16)
        """,
    )

    async def go() -> None:
        async with pool_of(spec("odd", entry=entry), wait=False, restart=QUICK) as pool:
            await say(pool, "hello").failure()
            cure.touch()
            await until(lambda: pool.is_ready)
            assert await say(pool, "hello").end()
            assert pool.snapshot()["breaker"] == "closed"
            assert pool.last_error == ""

    run(go())


def test_a_worker_that_loads_too_long_is_given_up() -> None:
    async def go() -> None:
        settings: dict[str, Any] = {"options": {"load_seconds": 60}, "load_timeout": 0.5}
        with pytest.raises(WorkerStartError, match="not ready within"):
            async with pool_of("chaos", restart=QUICK, **settings):
                pass

    run(go())


def test_a_python_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    async def go() -> None:
        missing = replace(spec("tone"), python=tmp_path / "no-python")
        with pytest.raises(WorkerStartError, match=r"cli\.py backends install tone"):
            async with pool_of(missing, restart=QUICK):
                pass

    run(go())


def test_a_spare_takes_over_at_once() -> None:
    async def go() -> None:
        async with pool_of("chaos", 1, spare=1, options={"load_seconds": 0.5}) as pool:
            await until(lambda: len(pool.snapshot()["workers"]) == 2)
            await until(
                lambda: {w["state"] for w in pool.snapshot()["workers"]} == {"ready", "spare"}
            )
            assert pool.slots == 1
            (working,) = pids(pool)
            os.kill(working, signal.SIGKILL)
            await until(lambda: pids(pool) not in ([], [working]))
            states = [w["state"] for w in pool.snapshot()["workers"]]
            assert states.count("ready") == 1
            assert await say(pool, "hello").end()

    run(go())


def test_a_worker_above_the_memory_limit_is_replaced_between_jobs() -> None:
    async def go() -> None:
        async with pool_of("chaos", memory_limit_mb=150.0) as pool:
            before = pids(pool)
            assert await say(pool, "leak leak leak").end()
            await until(lambda: pool.snapshot()["restarts"] == {"memory": 1})
            await until(lambda: len(pids(pool)) == len(living(pool)) == 1)
            assert pids(pool) != before
            assert await say(pool, "hello").end()

    run(go())


def test_ten_megabytes_of_prints_stall_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        async with pool_of("chaos") as pool:
            assert len(await say(pool, "print flood word").end()) == 3 * 480

    run(go())
    lines = [r.getMessage() for r in caplog.records if r.name == "voice_server.worker.chaos"]
    assert any("library banner on stdout" in line for line in lines)
    assert any("raw write to fd 1" in line for line in lines)
    assert any("lines left out" in line for line in lines)
    assert len(lines) < 2000


def test_grandchildren_go_with_their_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def is_there(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    async def go() -> None:
        async with pool_of("chaos") as pool:
            await say(pool, "grandchild").end()
            await until(lambda: "grandchild " in caplog.text)
            child = int(caplog.text.split("grandchild ")[1].split()[0])
            assert is_there(child)
            os.kill(pids(pool)[0], signal.SIGKILL)
            await until(lambda: not is_there(child))
            await until(lambda: pool.is_ready)
            assert await say(pool, "on").end()

    run(go())


def test_no_descriptor_and_no_zombie_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def children() -> set[int]:
        return {
            int(p)
            for p in Path("/proc/self/task").glob("*/children")
            for p in p.read_text().split()
        }

    async def go() -> None:
        async with pool_of("tone", 2) as pool:
            before = descriptors()
            for _ in range(5):
                victim = pids(pool)[0]
                os.kill(victim, signal.SIGKILL)
                await until(lambda victim=victim: len(pids(pool)) == 2 and victim not in pids(pool))
            await until(lambda: descriptors() == before)
            assert children() >= set(living(pool))
            assert len(living(pool)) == 2
        assert descriptors() == outside

    earlier = children()
    outside = -1

    async def outer() -> None:
        nonlocal outside
        outside = descriptors()
        await go()

    run(outer())
    assert children() <= earlier


def test_a_worker_killed_while_it_loads_is_replaced() -> None:
    async def go() -> None:
        async with pool_of(
            "chaos", wait=False, options={"load_seconds": 0.3}, restart=QUICK
        ) as pool:
            listener = say(pool, "hello")
            await until(lambda: bool(living(pool)))
            os.kill(living(pool)[0], signal.SIGKILL)
            assert await listener.end()

    run(go())
