"""Voices that change or go while somebody speaks with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.catalogue_server import PATIENCE, Server, serving
from tests.end_to_end.talking import Talk, talk
from tests.recordings import pitch_of

SENTENCE = "One two three four five six seven eight."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("in_use")) as running:
        yield running


def profile(server: Server, name: str, pitch: float) -> tuple[str, str]:
    """A profile with one recording; the ids of both."""
    voice = server.post("/profiles", {"name": name})["id"]
    return voice, sample(server, voice, pitch)


def sample(server: Server, voice: str, pitch: float) -> str:
    url = server.url(f"/profiles/{voice}/samples")
    file = server.recording(f"{pitch}.wav", pitch)
    return str(server.json("-X", "POST", url, "-F", f"file=@{file}")["id"])


@contextmanager
def agent(server: Server, voice: str) -> Iterator[Talk]:
    with talk(f"ws://127.0.0.1:{server.port}/stream-tokens") as socket:
        socket.send(voice=voice, keep_open=True)
        yield socket


def heard(socket: Talk, text: str = SENTENCE) -> float:
    """The pitch in which a turn is spoken; beeps of 50 ms tell multiples of 20 Hz apart."""
    before = socket.received
    socket.send(token=text, done=True)
    socket.until("done")
    return pitch_of(np.frombuffer(socket.sound[before:], "<i2"))


def delete(server: Server, path: str) -> None:
    assert server.curl("-X", "DELETE", server.url(path))[0] == 200


def test_a_voice_that_is_deleted_in_the_middle_of_a_turn_speaks_to_its_end(server: Server) -> None:
    voice, _ = profile(server, "Leaving", 180)
    with agent(server, voice) as socket:
        socket.send(token=f"{SENTENCE} ")
        socket.send(flush=True)
        socket.until("segment_done")
        delete(server, f"/profiles/{voice}")
        first = socket.received
        # The recording itself is needed, not what a worker remembers of it.
        server.curl("-X", "POST", server.url("/backends/tone/restart"))
        assert heard(socket) == pytest.approx(180, abs=2)
        assert socket.received > first
        assert not socket.of("error")
    recordings = server.folder / "data" / "voices" / voice
    deadline = time.monotonic() + PATIENCE
    while recordings.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_next_turn_speaks_with_what_the_voice_is_by_then(server: Server) -> None:
    voice, first = profile(server, "Changing", 160)
    with agent(server, voice) as socket:
        assert heard(socket) == pytest.approx(160, abs=2)
        sample(server, voice, 260)
        delete(server, f"/profiles/samples/{first}")
        assert heard(socket) == pytest.approx(260, abs=2)
        delete(server, f"/profiles/{voice}")
        socket.send(token=SENTENCE)
        assert socket.until("error")["code"] == "unknown_voice"
        assert socket.until_closed() == 1008


def test_two_turns_that_share_a_recording_keep_it_until_the_last_ends(server: Server) -> None:
    voice, _ = profile(server, "Shared", 200)
    recordings: Path = server.folder / "data" / "voices" / voice
    with agent(server, voice) as one, agent(server, voice) as other:
        for socket in (one, other):
            socket.send(token="One. ", flush=True)
            socket.until("segment_done")
        delete(server, f"/profiles/{voice}")
        assert heard(one) == pytest.approx(200, abs=2)
        assert list(recordings.iterdir())
        assert heard(other) == pytest.approx(200, abs=2)


def test_a_name_in_the_text_hands_over_to_its_voice(server: Server) -> None:
    profile(server, "Low Lou", 200.0)
    profile(server, "High Hai", 600.0)
    with agent(server, "high") as socket:
        assert heard(socket, "[low lou] One two three four five.") == pytest.approx(200, abs=30)
        assert heard(socket, "[High Hai]: One two three four five.") == pytest.approx(600, abs=30)
        assert heard(socket, "[nobody] One two three four five.") == pytest.approx(440, abs=30)
        before = socket.received
        assert heard(socket, "One two. [low lou] One. [High Hai] Two.") > 0
        pcm = np.frombuffer(socket.sound[before:], "<i2")
        parts = [pcm[:2_400], pcm[-2_400:-1_200], pcm[-1_200:]]
        assert [pitch_of(part) for part in parts] == [
            pytest.approx(pitch, abs=60) for pitch in (440, 200, 600)
        ]
        assert [m["sentence"] for m in socket.of("generating")][-3:] == ["One two.", "One.", "Two."]


def test_a_sound_whose_file_somebody_removed_is_told_as_missing(server: Server) -> None:
    voice, recording = profile(server, "Bereft", 220)
    [path] = server.folder.rglob(f"voices/{voice}/{recording}.wav")
    path.unlink()
    url = server.url(f"/profiles/samples/{recording}/audio")
    assert server.json(url, status=409)["code"] == "file_missing"
