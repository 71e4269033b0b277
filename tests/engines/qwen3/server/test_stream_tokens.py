"""Tokens in at a language model's pace, speech out before the text ends, through every part."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from tests.end_to_end.talking import talk

TOKENS = ["the ", "quick ", "brown ", "fox ", "jumps ", "over ", "the ", "lazy ", "dog."]


def say(agent, tokens, pause=0.0):
    for token in tokens:
        agent.send(token=token)
        time.sleep(pause)


@pytest.mark.parametrize("per_second", [5, 20, 100])
def test_sound_starts_before_the_text_ends_and_the_text_is_whole(path, per_second):
    with talk(path) as agent:
        agent.send(voice="ryan", seed=3)
        half = len(TOKENS) // 2
        say(agent, TOKENS[:half], 1 / per_second)
        agent.until("audio")  # before another token was sent
        say(agent, TOKENS[half:], 1 / per_second)
        agent.send(done=True)
        assert agent.until_closed() == 1000
        assert "".join(agent.sentences).split() == "".join(TOKENS).split()
        assert not agent.of("error")
        # At least a frame of sound for every token that was not held back.
        assert len(agent.sound) > 2 * 1920 * len(TOKENS)


def test_the_same_seed_gives_the_same_sound_at_any_pace(path):
    sounds = []
    for pause in (0.0, 0.05):
        with talk(path) as agent:
            agent.send(voice="ryan", seed=11)
            say(agent, TOKENS, pause)
            agent.send(done=True)
            assert agent.until_closed() == 1000
            sounds.append(agent.sound)
    assert sounds[0] == sounds[1]


def test_a_cancel_is_the_end_of_the_turn_and_frees_its_slot(server, path):
    with talk(path) as agent:
        agent.send(voice="ryan", keep_open=True)
        say(agent, TOKENS * 5)
        agent.until("audio")
        agent.send(cancel=True)
        cancelled = agent.until("cancelled")
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == "".join(TOKENS * 5)
        heard = agent.received
        say(agent, TOKENS[:3])
        agent.send(done=True)
        agent.until("done")
        assert agent.received > heard
    server.wait_quiet()


def test_a_dropped_turn_resumes_byte_for_byte(path):
    with talk(path) as agent:
        agent.send(voice="ryan", seed=7, format={"encoding": "pcm_s16le"})
        say(agent, TOKENS)
        agent.send(done=True)
        assert agent.until_closed() == 1000
        whole = agent.sound
    with talk(path) as agent:
        agent.send(voice="ryan", seed=7, format={"encoding": "pcm_s16le"})
        session = agent.until("ready")["session"]
        say(agent, TOKENS)
        agent.send(done=True)
        agent.until("audio")
        before = agent.sound
        agent.drop()
    with talk(path) as agent:
        agent.send(resume={"session": session, "samples": len(before) // 2})
        agent.until("resumed")
        assert agent.until_closed() == 1000
        assert before + agent.sound == whole


def test_a_crowd_outlives_its_worker(server, path):
    """Beside others a turn's sums are rounded otherwise, in every other run otherwise again."""
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(talk(path)) for _ in range(3)]
        for seed, agent in enumerate(agents):
            agent.send(voice="ryan", seed=seed)
            say(agent, TOKENS * (seed + 1))
            agent.until("audio")
        (worker,) = server.service.pools["qwen3"]._supervisor.ready_workers
        os.kill(worker.pid, signal.SIGKILL)
        for agent in agents:
            agent.send(done=True)
        for agent in agents:
            assert agent.until_closed() == 1000
            assert not agent.of("error")
            assert len(agent.sound) > 2 * 1920 * len(TOKENS)
    server.wait_ready()


def test_three_listeners_at_once_are_each_told_their_own(path):
    def tell(seed):
        with talk(path) as agent:
            agent.send(voice="ryan", seed=seed)
            say(agent, TOKENS[:4])
            agent.send(done=True)
            assert agent.until_closed() == 1000
            return len(agent.sound)

    alone = [tell(seed) for seed in (1, 2, 3)]
    agents = []
    try:
        for seed in (1, 2, 3):
            context = talk(path)
            agents.append((context, context.__enter__()))
            agents[-1][1].send(voice="ryan", seed=seed)
        for token in TOKENS[:4]:
            for _, agent in agents:
                agent.send(token=token)
        for _, agent in agents:
            agent.send(done=True)
        for (_, agent), length in zip(agents, alone, strict=True):
            assert agent.until_closed() == 1000
            assert len(agent.sound) == length
    finally:
        for context, _ in agents:
            context.__exit__(None, None, None)
