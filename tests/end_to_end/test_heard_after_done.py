"""Engines are faster than people: a turn is sent whole long before it is heard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import Server
from tests.end_to_end.talking import Talk, talk

WORDS = "one two three four five six seven eight nine ten "
FIRST, SECOND = WORDS * 10, "Another turn."


@pytest.fixture
def agent(server: Server) -> Iterator[Talk]:
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(backend="tone", keep_open=True, opts={"speed": 0.25})  # 200 ms a word: 20 s
        agent.send(token=FIRST, done=True)
        agent.until("done")
        yield agent


def test_a_turn_that_was_sent_whole_is_interrupted_to_the_word(agent: Talk) -> None:
    agent.send(cancel=True, played_ms=650)
    cancelled = agent.until("cancelled")
    assert cancelled["text_spoken"] == "one two three"
    assert cancelled["text_spoken"] + cancelled["text_remaining"] == FIRST
    assert cancelled["played_ms"] == 650


def test_the_next_turn_is_heard_after_it_and_dropped_with_it(agent: Talk) -> None:
    agent.send(token=SECOND, done=True)
    agent.until("done")
    agent.send(cancel=True)
    cancelled = agent.until("cancelled")
    assert cancelled["text_spoken"] + cancelled["text_remaining"] == FIRST
    agent.send(cancel=True)
    assert agent.until("cancelled")["text_remaining"] == ""


def test_a_turn_can_be_interrupted_once(agent: Talk) -> None:
    agent.send(cancel=True, played_ms=650)
    agent.send(cancel=True, played_ms=650)
    agent.until("cancelled")
    assert agent.until("cancelled")["text_spoken"] == ""
