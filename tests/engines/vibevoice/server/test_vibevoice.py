"""VibeVoice through every part: tokens, dropped voices, and what it refuses."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import wait_until
from tests.end_to_end.talking import talk
from tests.engines.serving import TOKENS, told
from tests.recordings import wav


def test_the_first_message_of_every_client_works(server):
    agent = told(server, voice="af_heart", seed=3)
    assert agent.close_code == 1000
    assert " ".join(agent.sentences).split() == "".join(TOKENS).split()
    assert len(agent.sound) >= 2 * 6_400, "a frame at least of each sentence"
    assert told(server, voice="af_heart", seed=3).sound == agent.sound


def test_a_cancel_inside_a_segment_ends_the_turn(server):
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice="default", keep_open=True)
        agent.tokens(*["and on and on "] * 40, "it goes.")
        agent.send(flush=True)
        agent.until("audio")
        agent.send(cancel=True)
        agent.until("cancelled")
        agent.tokens("Hello.")
        agent.send(done=True)
        agent.until("done")
    server.wait_quiet()


def test_a_dropped_recording_is_a_voice(server):
    folder = server.config.settings.voice_samples_dir
    folder.mkdir(exist_ok=True)
    (folder / "obama.wav").write_bytes(wav(4.0, pitch=110))
    wait_until(lambda: not told(server, voice="obama", seed=1).of("error"))
    dropped = told(server, voice="obama", seed=1)
    assert dropped.close_code == 1000
    assert dropped.sound != told(server, voice="default", seed=1).sound


def test_a_dialogue_changes_voices_where_it_says_so(server):
    """Each line in the voice that its name has in the catalogue, and nobody's name is said."""
    folder = server.config.settings.voice_samples_dir
    folder.mkdir(exist_ok=True)
    for name, pitch in (("anna", 220), ("bert", 90)):
        (folder / f"{name}.wav").write_bytes(wav(3.0, pitch=pitch))
        wait_until(lambda name=name: not told(server, voice=name, seed=1).of("error"))
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
