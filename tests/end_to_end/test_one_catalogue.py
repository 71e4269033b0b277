"""A voice made through any door is spoken through every door, with its own pitch."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import PATIENCE, Server, pitch_in, serving
from tests.recordings import container, wav


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("catalogue")) as running:
        yield running


def dropped(server: Server) -> tuple[str, float]:
    (server.folder / "samples" / "fallen.wav").write_bytes(wav(3, 171))
    deadline = time.monotonic() + PATIENCE
    while True:
        voices = server.json(server.url("/voices?kind=dropped"))["voices"]
        if any(voice["id"] == "fallen" for voice in voices):
            return "fallen", 171
        assert time.monotonic() < deadline
        time.sleep(0.05)


def profiled(server: Server) -> tuple[str, float]:
    profile = server.post("/profiles", {"name": "Profiled", "language": "en"})
    server.recording("p.wav", 203)
    server.json(
        *("-X", "POST", server.url(f"/profiles/{profile['id']}/samples")),
        *("-F", "file=@p.wav", "-F", "reference_text=This is my voice sample"),
    )
    return profile["id"], 203


def saved_after_a_preview(server: Server) -> tuple[str, float]:
    with server.socket("/ws") as socket:
        session = server.json(
            *(
                "-X",
                "POST",
                server.url("/upload"),
                "-F",
                f"audio=@{server.recording('s.wav', 237)}",
            ),
            *("-F", "transcription=Hello, this is my voice."),
        )["session_id"]
        socket.send(
            json.dumps(
                {"type": "generate_preview", "data": {"session_id": session, "text": "Hello"}}
            )
        )
        assert json.loads(socket.recv(60))["type"] == "tts_complete"
        socket.send(json.dumps({"type": "save_voice", "data": {"name": "Saved One"}}))
        saved = json.loads(socket.recv(60))
    assert saved["type"] == "voice_saved", saved
    return saved["data"]["voice_id"], 237


def onboarded(server: Server) -> tuple[str, float]:
    (server.folder / "o.mp4").write_bytes(container("mp4", "aac", video="mpeg4", pitch=263))
    made = server.json(
        *("-X", "POST", server.url("/api/public/voice/onboarding/clone")),
        *("-F", "audio_file=@o.mp4", "-F", "voice_name=Onboarded"),
    )
    return made["voice_id"], 263


def cloned(server: Server) -> tuple[str, float]:
    made = server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "name=Cloned Voice"),
        *("-F", f"file=@{server.recording('c.wav', 289)}", "-F", "ref_text=Hello."),
    )
    return made["voice_id"], 289


def imported(server: Server) -> tuple[str, float]:
    server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "name=Traveller"),
        *("-F", f"file=@{server.recording('t.wav', 311)}"),
    )
    server.curl(server.url("/api/v1/tts/voices/traveller/package"), "-o", "t.voicepkg.zip")
    server.json("-X", "DELETE", server.url("/api/v1/tts/voices/traveller"))
    made = server.json(
        *("-F", "file=@t.voicepkg.zip", server.url("/api/v1/tts/voices/import")),
    )
    return made["voice_id"], 311


MAKERS = [dropped, profiled, saved_after_a_preview, onboarded, cloned, imported]


@pytest.mark.parametrize("make", MAKERS)
def test_a_voice_of_one_door_is_heard_through_every_door(
    server: Server, make: Callable[[Server], tuple[str, float]]
) -> None:
    voice, pitch = make(server)
    for hear in (
        server.heard_by_stream_tokens,
        server.heard_by_tts,
        server.heard_by_synthesize,
        server.heard_by_generate,
        server.heard_by_preview,
        server.heard_by_onboarding,
    ):
        # One word is 50 ms, whose spectrum is 20 Hz wide; the strongest bin of many is finer.
        assert hear(voice) == pytest.approx(pitch, abs=12), hear.__name__
    assert voice in {v["id"] for v in server.json(server.url("/profiles"))}
    assert voice in {v["voice_id"] for v in server.json(server.url("/api/v1/tts/voices"))["voices"]}
    status = server.json(server.url(f"/api/public/voice/onboarding/status/{voice}"))
    assert (status["status"], status["voice_id"]) == ("ready", voice)
    assert "tone" in status["detail"]


def test_samples_of_one_profile_are_combined(server: Server) -> None:
    """Tone takes the mean of the pitches of all samples, so each must have reached it."""
    profile = server.post("/profiles", {"name": "Several"})["id"]
    for pitch in (180, 240):
        name = server.recording(f"m{pitch}.wav", pitch)
        sample = server.json(
            *("-X", "POST", server.url(f"/profiles/{profile}/samples"), "-F", f"file=@{name}"),
            *("-F", f"reference_text=Sample of {pitch}"),
        )
    assert server.heard_by_tts(profile) == pytest.approx(210, abs=12)
    server.json("-X", "DELETE", server.url(f"/profiles/samples/{sample['id']}"))
    assert server.heard_by_tts(profile) == pytest.approx(180, abs=12)
    assert len(server.json(server.url(f"/profiles/{profile}/samples"))) == 1


def test_all_voices_survive_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        voice, pitch = cloned(server)
        generation = server.post("/generate", {"profile_id": voice, "text": "Keep this."})
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    with serving(tmp_path) as server:
        assert server.heard_by_stream_tokens(voice) == pytest.approx(pitch, abs=12)
        status, sound = server.curl(server.url(f"/audio/{generation['id']}"))
        assert status == 200
        assert pitch_in(sound) == pytest.approx(pitch, abs=12)
