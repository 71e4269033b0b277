"""Kokoro through every part: the default voice, mixtures, languages, and what it refuses."""

from __future__ import annotations

import pytest

from tests.engines.serving import TOKENS, told


def test_the_first_message_of_every_client_works(server):
    agent = told(server, voice="af_heart", opts={"speed": 1.0}, seed=3)
    assert agent.close_code == 1000
    assert " ".join(agent.sentences).split() == "".join(TOKENS).split()
    assert told(server, seed=3).sound == agent.sound, "it is the default voice"


def test_a_mixture_is_a_voice(server):
    mixed = told(server, voice="af_heart*0.6+bella*0.4", seed=3)
    assert mixed.close_code == 1000
    assert len(mixed.sound) > 0
    assert mixed.sound != told(server, voice="af_heart", seed=3).sound


@pytest.mark.parametrize("language", ["es", "fr", "hi", "it", "ja", "pt", "zh", "en-GB"])
def test_a_language_may_be_asked_for(server, language):
    assert told(server, ["Hola ", "amigo."], language=language).close_code == 1000


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
def test_what_it_cannot_do_is_refused_with_a_code(server, opening, code):
    agent = told(server, **opening)
    assert [error["code"] for error in agent.of("error")][:1] == [code]
    assert told(server).close_code == 1000, "the next turn is not hurt"


def test_tags_of_other_engines_are_not_spoken(server):
    """Nothing is left of them: the same samples as without."""
    tagged = told(server, ["[laugh] Hello ", "there."], seed=4)
    assert tagged.close_code == 1000
    assert tagged.sound == told(server, ["Hello ", "there."], seed=4).sound
