"""What the documents say of cloning and of tags, as a user types it, through every part."""

from __future__ import annotations

import re
import wave

import httpx
import pytest

from tests.end_to_end import cli_process
from tests.end_to_end.cli_process import run_cli
from tests.end_to_end.conftest import wait_until
from tests.engines.serving import told
from tests.recordings import wav

cli_process.SECONDS = 400.0
pytestmark = pytest.mark.timeout(600)


def test_the_first_message_of_the_documents_is_answered_with_speech(server):
    agent = told(server, ["Hello ", "world. "], voice="af_heart")
    assert not agent.of("error")
    assert agent.sound


def test_a_tag_that_it_has_reaches_it_and_no_other_is_spoken(server):
    text = "Well [throat] I [sneeze] can't believe it! [laugh] That's hilarious [note one]."
    agent = told(server, [text], voice="default")
    assert not agent.of("error")
    assert agent.sound
    spoken = server.service.pools["chatterbox"].info.tags
    assert {"clear throat", "laugh", "sigh", "cough", "sniff", "chuckle"} <= set(spoken)
    sentences = " ".join(agent.sentences)
    assert "[clear throat]" in sentences
    assert "[laugh]" in sentences
    assert "sneeze" not in sentences
    assert "[throat]" not in sentences


def test_a_dropped_recording_is_a_voice_by_the_documented_command(folder, tmp_path):
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    (samples / "obama.wav").write_bytes(wav(7.0, pitch=110))
    out = tmp_path / "hello.wav"
    command = ["--backend", "chatterbox", "--voice", "obama", "--text", "Hello there."]
    done = run_cli(folder, *command, "--output", str(out))
    assert done.returncode == 0, done.stderr
    with wave.open(str(out), "rb") as file:
        assert file.getnframes() > 0
    prepared = list((folder / "data").rglob("turbo.safetensors"))
    assert len(prepared) == 1, "what was prepared of the voice is kept"


def test_a_dropped_recording_that_is_too_short_says_how_long_it_must_be(folder, tmp_path):
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    (samples / "brief.wav").write_bytes(wav(3.0, pitch=110))
    command = ["--backend", "chatterbox", "--voice", "brief", "--text", "Hello there."]
    done = run_cli(folder, *command, "--output", str(tmp_path / "no.wav"))
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stderr)
    assert "'chatterbox' needs more than 5 s" in said


def test_a_clone_that_is_too_short_is_refused_before_it_is_a_voice(server):
    form = {"name": "Brief"}
    with httpx.Client(base_url=server.url, timeout=120) as http:
        door = "/api/v1/tts/clone"
        short = http.post(door, data=form, files={"file": ("a.wav", wav(3.0))})
        assert short.status_code == 400, short.text
        assert "sample_too_short" in short.text
        long = http.post(door, data=form, files={"file": ("a.wav", wav(6.5))})
        assert long.status_code < 300, long.text
    agent = told(server, ["Hello there."], voice="brief", seed=1)
    assert not agent.of("error")
    assert agent.sound != told(server, ["Hello there."], voice="default", seed=1).sound
    wait_until(lambda: server.service.pools["chatterbox"].free_slots == 1)


def test_a_voice_or_language_of_another_engine_is_refused_with_a_remedy(server):
    (error,) = told(server, ["Hello."], voice="af_bella").of("error")
    assert error["code"] == "unknown_voice"
    (error,) = told(server, ["Bonjour."], voice="default", language="fr").of("error")
    assert error["code"] == "unsupported_language"
    assert "speaks en" in str(error)
