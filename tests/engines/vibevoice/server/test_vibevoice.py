"""VibeVoice through every part: tokens, dropped voices, and what it refuses."""

from __future__ import annotations

import pytest

from tests.engines.serving import TOKENS, cancel_inside_a_segment, drop, told


def test_the_first_message_of_every_client_works(server):
    agent = told(server, voice="af_heart", seed=3)
    assert agent.close_code == 1000
    assert " ".join(agent.sentences).split() == "".join(TOKENS).split()
    assert len(agent.sound) >= 2 * 6_400, "a frame at least of each sentence"
    assert told(server, voice="af_heart", seed=3).sound == agent.sound


def test_a_cancel_inside_a_segment_ends_the_turn(server):
    cancel_inside_a_segment(server, voice="default")


def test_a_dropped_recording_is_a_voice(server):
    drop(server, "obama", pitch=110)
    dropped = told(server, voice="obama", seed=1)
    assert dropped.close_code == 1000
    assert dropped.sound != told(server, voice="default", seed=1).sound


def test_a_dialogue_changes_voices_where_it_says_so(server):
    """Each line in the voice that its name has in the catalogue, and nobody's name is said."""
    drop(server, "anna", pitch=220)
    drop(server, "bert", pitch=90)
    lines = ["[anna] ", "Hello ", "there. ", "[be", "rt]: ", "Good ", "day. ", "[nobody] ", "Bye."]
    dialogue = told(server, lines, voice="default", seed=1)
    assert dialogue.close_code == 1000
    assert dialogue.sentences == ["Hello there.", "Good day.", "Bye."]
    # The first line is what Anna alone would say, and what follows is not.
    anna = told(server, ["Hello ", "there. ", "Good ", "day. ", "Bye."], voice="anna", seed=1)
    alone = told(server, ["Hello ", "there."], voice="anna", seed=1)
    assert anna.sound.startswith(alone.sound)
    assert dialogue.sound.startswith(alone.sound)
    assert dialogue.sound != anna.sound


@pytest.mark.parametrize(
    ("opening", "code"),
    [
        ({"voice": "bf_emma"}, "unknown_voice"),
        ({"opts": {"exaggeration": 1}}, "unknown_option"),
        ({"opts": {"guidance_scale": 9}}, "bad_option"),
        ({"language": "de"}, "unsupported_language"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_code(server, opening, code):
    agent = told(server, **opening)
    assert [error["code"] for error in agent.of("error")][:1] == [code]
    assert told(server).close_code == 1000, "the next turn is not hurt"
