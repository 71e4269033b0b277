"""Pocket TTS through every part: tokens, voices dropped and built in, languages, and what it refuses."""

from __future__ import annotations

import pytest

from tests.end_to_end.talking import talk
from tests.engines.serving import TOKENS, cancel_inside_a_segment, drop, told


def test_the_first_message_of_every_client_works(server):
    agent = told(server, voice="af_heart", seed=3)
    assert agent.close_code == 1000
    assert " ".join(agent.sentences).split() == "".join(TOKENS).split()
    assert len(agent.sound) > 24_000
    assert told(server, voice="af_heart", seed=3).sound == agent.sound


def test_sound_starts_before_the_text_ends(server):
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice="marius")
        agent.tokens(*TOKENS[:5])
        agent.until("audio")
        agent.tokens(*TOKENS[5:])
        agent.send(done=True)
        assert agent.until_closed() == 1000


def test_a_cancel_inside_a_segment_ends_the_turn(server):
    cancel_inside_a_segment(server, voice="alba")


def test_a_dropped_recording_is_a_voice(server):
    drop(server, "obama", pitch=110)
    dropped = told(server, voice="obama", seed=1)
    assert dropped.close_code == 1000
    assert dropped.sound != told(server, voice="alba", seed=1).sound


def test_languages_are_chosen_by_the_client(server):
    german = told(server, voice="alba", language="de", seed=1)
    assert german.close_code == 1000
    assert german.sound != told(server, voice="alba", language="en", seed=1).sound


@pytest.mark.parametrize(
    ("opening", "code"),
    [
        ({"voice": "bf_emma"}, "unknown_voice"),
        ({"voice": "en-us+f3"}, "unknown_voice"),
        ({"opts": {"exaggeration": 1}}, "unknown_option"),
        ({"opts": {"temperature": 9}}, "bad_option"),
        ({"language": "zh"}, "unsupported_language"),
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
