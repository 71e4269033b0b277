"""Kokoro through every part: the default voice, mixtures, languages, and what it refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from tests.end_to_end import talking
from tests.end_to_end.talking import talk

talking.PATIENCE = 120.0

TOKENS = ["the ", "quick ", "brown ", "fox. ", "It ", "jumps."]


def told(path, tokens=TOKENS, **opening):
    with talk(path) as agent:
        # What it refuses it refuses at once, perhaps while we are still sending.
        with suppress(ConnectionClosed):
            agent.send(**opening)
            agent.tokens(*tokens)
            agent.send(done=True)
        agent.until_closed()
        return agent


def test_the_first_message_of_every_client_works(path):
    agent = told(path, voice="af_heart", opts={"speed": 1.0}, seed=3)
    assert agent.close_code == 1000
    assert " ".join(agent.sentences).split() == "".join(TOKENS).split()
    assert told(path, seed=3).sound == agent.sound, "it is the default voice"


def test_a_mixture_is_a_voice(path):
    mixed = told(path, voice="af_heart*0.6+bella*0.4", seed=3)
    assert mixed.close_code == 1000
    assert len(mixed.sound) > 0
    assert mixed.sound != told(path, voice="af_heart", seed=3).sound


@pytest.mark.parametrize("language", ["es", "fr", "hi", "it", "ja", "pt", "zh", "en-GB"])
def test_a_language_may_be_asked_for(path, language):
    assert told(path, ["Hola ", "amigo."], language=language).close_code == 1000


@pytest.mark.parametrize(
    ("opening", "code"),
    [
        ({"voice": "alba"}, "unknown_voice"),
        ({"voice": "dora"}, "unknown_voice"),
        ({"voice": "af_heart+"}, "unknown_voice"),
        ({"opts": {"exaggeration": 1}}, "unknown_option"),
        ({"opts": {"speed": 9}}, "bad_option"),
        ({"language": "de"}, "unsupported_language"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_code(path, opening, code):
    agent = told(path, **opening)
    assert [error["code"] for error in agent.of("error")][:1] == [code]
    assert told(path).close_code == 1000, "the next turn is not hurt"


def test_tags_of_other_engines_are_not_spoken(path):
    """Nothing is left of them: the same samples as without."""
    tagged = told(path, ["[laugh] Hello ", "there."], seed=4)
    assert tagged.close_code == 1000
    assert tagged.sound == told(path, ["Hello ", "there."], seed=4).sound
