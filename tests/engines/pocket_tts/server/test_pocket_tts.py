"""Pocket TTS through every part: tokens, voices dropped and built in, languages, and what it refuses."""

from __future__ import annotations

import shutil
import wave
from array import array
from math import sin

import pytest

from tests.end_to_end.conftest import wait_until
from tests.end_to_end.talking import talk
from tests.engines.serving import TOKENS, told


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
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice="alba", keep_open=True)
        agent.tokens(*["and on and on "] * 40, "it goes.")
        agent.send(flush=True)
        agent.until("audio")
        agent.send(cancel=True)
        agent.until("cancelled")
        agent.tokens("Hello.")
        agent.send(done=True)
        agent.until("done")
    server.wait_quiet()


def test_a_dropped_recording_is_a_voice(server, tmp_path):
    sound = array("h", (int(9000 * sin(n * 0.04 + 2 * sin(n * 0.001))) for n in range(4 * 24_000)))
    with wave.open(str(tmp_path / "obama.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    folder = server.config.settings.voice_samples_dir
    folder.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "obama.wav", folder / "obama.wav")
    wait_until(lambda: not told(server, voice="obama", seed=1).of("error"))
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
