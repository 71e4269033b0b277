"""The documents this server was made from, call by call, as they write them with curl."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.catalogue_server import Server, pitch_in, pitch_in_data_uri, serving
from tests.recordings import container

ONBOARDING = "/api/public/voice/onboarding"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("documented")
    with serving(folder) as running:
        for name, pitch in (("sample", 190), ("sample1", 180), ("sample2", 220), ("source", 250)):
            running.recording(f"{name}.wav", pitch)
        (folder / "recording.mp3").write_bytes(container("mp3", "libmp3lame", pitch=210))
        (folder / "recording.mp4").write_bytes(container("mp4", "aac", video="mpeg4"))
        (folder / "recording.webm").write_bytes(container("webm", "libopus", 48_000, "libvpx"))
        yield running


# -- profiles, generation, history -----------------------------------------------------------------


def test_the_profile_document(server: Server) -> None:
    created = server.json(
        *("-X", "POST", "http://localhost:8000/profiles", "-H", "Content-Type: application/json"),
        *("-d", '{"name": "My Voice", "language": "en"}'),
    )
    assert created.keys() >= {"id", "name", "description", "language", "created_at", "updated_at"}
    one = f"http://localhost:8000/profiles/{created['id']}"
    assert server.json(one) == created
    assert created["id"] in {p["id"] for p in server.json("http://localhost:8000/profiles")}

    sample = server.json(
        *("-X", "POST", f"{one}/samples", "-F", "file=@sample.wav"),
        *("-F", "reference_text=This is my voice sample"),
    )
    assert sample.keys() >= {"id", "profile_id", "audio_path", "reference_text"}
    assert sample["profile_id"] == created["id"]
    assert sample["reference_text"] == "This is my voice sample"
    assert Path(sample["audio_path"]).is_file()
    for name, text in (("sample1", "First sample"), ("sample2", "Second sample")):
        server.json(
            "-X",
            "POST",
            f"{one}/samples",
            "-F",
            f"file=@{name}.wav",
            "-F",
            f"reference_text={text}",
        )
    samples = server.json(f"{one}/samples")
    assert [s["reference_text"] for s in samples][1:] == ["First sample", "Second sample"]

    spoken = server.json(
        *("-X", "POST", "http://localhost:8000/generate", "-H", "Content-Type: application/json"),
        "-d",
        json.dumps(
            {
                "profile_id": created["id"],
                "text": "Hello, this is a test.",
                "language": "en",
                "seed": 42,
            }
        ),
    )
    assert spoken.keys() >= {
        *("id", "profile_id", "text", "language", "audio_path", "duration", "seed", "created_at")
    }
    assert (spoken["seed"], spoken["text"]) == (42, "Hello, this is a test.")
    server.curl(f"http://localhost:8000/audio/{spoken['id']}", "-o", "output.wav")
    assert pitch_in((server.folder / "output.wav").read_bytes()) == pytest.approx(197, abs=12)

    assert server.json(f"http://localhost:8000/history/{spoken['id']}") == spoken
    page = server.json(f"http://localhost:8000/history?profile_id={created['id']}&search=A%20TEST")
    assert [item["id"] for item in page["items"]] == [spoken["id"]]
    assert (page["limit"], page["offset"], page["total"]) == (50, 0, 1)
    stats = server.json("http://localhost:8000/history/stats")
    assert stats["total_generations"] >= 1
    assert stats["generations_by_profile"][created["id"]] == 1
    assert stats["total_duration_seconds"] >= spoken["duration"] > 0
    server.json("-X", "DELETE", f"http://localhost:8000/history/{spoken['id']}")
    for gone in (f"/history/{spoken['id']}", f"/audio/{spoken['id']}"):
        assert server.json(server.url(gone), status=404)["code"] == "unknown_generation"

    server.json("-X", "DELETE", f"http://localhost:8000/profiles/samples/{sample['id']}")
    assert not Path(sample["audio_path"]).exists()
    changed = server.json(
        *("-X", "PUT", one, "-H", "Content-Type: application/json"),
        *("-d", '{"name": "Renamed", "description": "Optional description"}'),
    )
    assert (changed["name"], changed["language"]) == ("Renamed", "en")
    server.json("-X", "DELETE", one)
    missing = server.json(one, status=404)
    assert "not found" in missing["detail"]
    assert missing["code"] == "unknown_voice"


def test_the_same_seed_gives_the_same_bytes(server: Server) -> None:
    voice = server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "name=Seeded"),
        *("-F", "file=@sample.wav"),
    )["voice_id"]
    body = {"profile_id": voice, "text": "The same again.", "seed": 7}
    sounds = []
    for _ in range(2):
        made = server.post("/generate", body)
        sounds.append(server.curl(server.url(f"/audio/{made['id']}"))[1])
    assert sounds[0] == sounds[1]


def test_ranges_of_a_sound_can_be_asked_for(server: Server) -> None:
    voice = server.json(server.url("/api/v1/tts/voices"))["voices"][-1]["voice_id"]
    made = server.post("/generate", {"profile_id": voice, "text": "A range of it."})
    url = server.url(f"/audio/{made['id']}")
    _, whole = server.curl(url)
    status, part = server.curl("-r", "100-199", url)
    assert (status, part) == (206, whole[100:200])
    assert server.curl("-r", "99999999-", url)[0] == 416


def test_the_health_and_root_of_the_profile_document(server: Server) -> None:
    health = server.json("http://localhost:8000/health")
    assert health["status"] == "healthy"
    assert health["model_loaded"] is True
    assert health["gpu_available"] in (True, False)
    assert health["vram_used_mb"] >= 0
    assert "version" in server.json("http://localhost:8000/")


def test_projects_are_kept(server: Server) -> None:
    made = server.post("/projects", {"name": "Podcast", "data": {"tracks": [1, 2]}})
    one = server.url(f"/projects/{made['id']}")
    assert server.json(one)["data"] == {"tracks": [1, 2]}
    server.json("-X", "PUT", one, "-H", "Content-Type: application/json", "-d", '{"data": {}}')
    assert made["id"] in {p["id"] for p in server.json(server.url("/projects"))}
    assert server.json(one)["data"] == {}
    server.json("-X", "DELETE", one)
    assert server.json(one, status=404)["code"] == "unknown_project"
    assert server.json("-X", "DELETE", one, status=404)["code"] == "unknown_project"


def test_a_batch_is_spoken_and_its_progress_told(server: Server) -> None:
    voice = server.json(server.url("/api/v1/tts/voices"))["voices"][-1]["voice_id"]
    items: list[dict[str, Any]] = [{"profile_id": voice, "text": f"Item {i}."} for i in range(3)]
    items.insert(1, {"profile_id": "nobody", "text": "Not this one."})
    batch = server.post("/generate/batch", {"items": items}, status=202)
    with server.socket(f"/generate/batch/{batch['batch_id']}/ws") as socket:
        messages = [json.loads(message) for message in socket]
    assert [m["type"] for m in messages][-1] == "batch_complete"
    assert {m["type"] for m in messages[:-1]} == {"progress"}
    final = messages[-1]["data"]
    assert (final["done"], final["total"], final["status"]) == (4, 4, "done")
    assert [g["text"] for g in final["generations"]] == ["Item 0.", "Item 1.", "Item 2."]
    assert [(f["index"], f["code"]) for f in final["failures"]] == [(1, "unknown_voice")]
    assert server.json(server.url(f"/generate/batch/{batch['batch_id']}")) == final
    with server.socket("/generate/batch/none/ws") as socket:
        assert json.loads(socket.recv(60))["code"] == "unknown_batch"


# -- upload, preview, save -------------------------------------------------------------------------


def test_the_lifecycle_document(server: Server) -> None:
    status, _ = server.curl(
        *("-X", "POST", "http://localhost:8000/preview", "-F", "audio=@source.wav"),
        *("-F", "transcription=Hello, this is my voice."),
        *("-F", "response_text=How can I help you today?"),
        *("--output", "preview.wav", "-D", "headers.txt"),
    )
    assert status == 200
    assert pitch_in((server.folder / "preview.wav").read_bytes()) == pytest.approx(250, abs=12)
    lines = (server.folder / "headers.txt").read_text().lower().splitlines()
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert headers["content-type"] == "audio/wav"
    status, again = server.curl(server.url(f"/previews/{headers['x-job-id']}.wav"))
    assert again == (server.folder / "preview.wav").read_bytes()

    with server.socket("/ws") as socket:

        def ask(kind: str, **data: Any) -> dict[str, Any]:
            socket.send(json.dumps({"type": kind, "data": data}))
            answer: dict[str, Any] = json.loads(socket.recv(60))
            return answer

        assert ask("save_voice", name="Nova")["data"]["code"] == "no_session"
        complete = ask("generate_preview", session_id=headers["x-session-id"], text="Hello")
        assert complete["type"] == "tts_complete"
        data = complete["data"]
        assert data["audio_url"] == f"/previews/{data['job_id']}.wav"
        assert data["temporary"] is True
        status, sound = server.curl(server.url(data["audio_url"]))
        assert pitch_in(sound) == pytest.approx(250, abs=20)
        assert ask("generate_preview", text="Again, remembered")["type"] == "tts_complete"
        saved = ask("save_voice", name="Nova", description="Warm")
        assert saved == {
            "type": "voice_saved",
            "data": {"voice_id": "nova", "name": "Nova", "description": "Warm"},
        }
        assert ask("generate_preview", session_id=headers["x-session-id"], text="x")["data"][
            "code"
        ] == ("unknown_session")

    assert "nova" in {v["id"] for v in server.json("http://localhost:8000/voices")["voices"]}
    status, _ = server.curl(
        *("-X", "POST", "http://localhost:8000/preview-from-voice", "-F", "voice_id=nova"),
        *("-F", "response_text=How can I help you today?", "--output", "preview2.wav"),
    )
    assert status == 200
    assert pitch_in((server.folder / "preview2.wav").read_bytes()) == pytest.approx(250, abs=12)
    samples = server.json(server.url("/profiles/nova/samples"))
    assert samples[0]["reference_text"] == "Hello, this is my voice."


def test_the_deprecated_upload_and_an_explicit_session_id(server: Server) -> None:
    for voice_id in ("stella", "stella_2"):  # the first keeps its id
        uploaded = server.json(
            *("-X", "POST", "http://localhost:8000/upload", "-F", "audio=@source.wav"),
            *("-F", "transcription=Hi."),
        )
        with server.socket("/ws") as socket:
            data = {"name": "Stella", "session_id": uploaded["session_id"]}
            socket.send(json.dumps({"type": "save_voice", "data": data}))
            saved = json.loads(socket.recv(60))
        assert saved["data"]["voice_id"] == voice_id


# -- onboarding ------------------------------------------------------------------------------------


def test_the_onboarding_document(server: Server) -> None:
    made = server.json(
        *("-X", "POST", f"http://localhost:8000{ONBOARDING}/clone"),
        *("-F", "audio_file=@recording.mp3", "-F", "user_id=user123", "-F", "voice_name=My Voice"),
        *("-F", "sample_text=Hello, this is my cloned voice"),
    )
    assert made["success"] is True
    assert made["voice_id"].startswith("voice_")
    assert len(made["voice_id"]) == len("voice_a1b2c3d4e5f6")
    assert made["voice_name"] == "My Voice"
    assert made["sample_text"] == "Hello, this is my cloned voice"
    assert pitch_in_data_uri(made["sample_audio"]) == pytest.approx(210, abs=12)
    one = made["voice_id"]
    status = server.json(server.url(f"{ONBOARDING}/status/{one}"))
    assert (status["status"], status["user_id"]) == ("ready", "user123")
    tested = server.json(
        "-X", "POST", server.url(f"{ONBOARDING}/test/{one}"), "-F", "text=Hi there."
    )
    assert tested["audio"].startswith("data:audio/mp3;base64,")
    assert server.json("-X", "DELETE", server.url(f"{ONBOARDING}/{one}"))["success"] is True
    for gone in (f"{ONBOARDING}/status/{one}",):
        assert server.json(server.url(gone), status=404)["code"] == "unknown_voice"


@pytest.mark.parametrize("name", ["recording.mp4", "recording.webm", "sample.wav"])
def test_onboarding_with_nothing_but_a_file(server: Server, name: str) -> None:
    """As the frontend of the document does it: a form with the file alone or with a name."""
    made = server.json("-X", "POST", server.url(f"{ONBOARDING}/clone"), "-F", f"audio_file=@{name}")
    assert (made["success"], made["sample_audio"]) == (True, None)
    assert "no transcriber is installed" in made["transcript_note"]


# -- packages --------------------------------------------------------------------------------------


def test_the_package_document(server: Server) -> None:
    made = server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "file=@sample.wav"),
        *("-F", "name=Maya", "-F", "voice_id=maya_cloned", "-F", "display_name=Maya (Cloned)"),
        *("-F", "ref_text=Oh my god, do you see this?", "-F", "description=Young woman"),
    )
    assert made["voice_id"] == "maya_cloned"
    authorised = ("-H", "Authorization: Bearer $API_KEY")
    status, _ = server.curl(
        *authorised,
        "http://your-relay.com:9800/api/v1/tts/voices/maya_cloned/package",
        *("-o", "maya_cloned.voicepkg.zip"),
    )
    assert status == 200
    with zipfile.ZipFile(server.folder / "maya_cloned.voicepkg.zip") as archive:
        assert {"meta.json", "ref.wav", "ref_transcript.txt"} <= set(archive.namelist())
    into = "http://your-relay.com:9800/api/v1/tts/voices/import"
    upload = (*authorised, "-F", "file=@maya_cloned.voicepkg.zip")
    assert server.json(*upload, into, status=409)["code"] == "voice_exists"
    assert server.json(*upload, f"{into}?on_conflict=skip")["status"] == "skipped"
    renamed = server.json(*upload, f"{into}?on_conflict=rename")
    assert renamed["voice_id"] == "maya_cloned_2"
    server.json("-X", "DELETE", server.url("/api/v1/tts/voices/maya_cloned"))
    imported = server.json(*upload, into)
    assert (imported["status"], imported["voice_id"]) == ("imported", "maya_cloned")
    assert imported["voice"]["ref_text"] == "Oh my god, do you see this?"
    _, again = server.curl(server.url("/api/v1/tts/voices/maya_cloned/package"))
    assert again == (server.folder / "maya_cloned.voicepkg.zip").read_bytes()
    synced = server.json(
        *authorised, "-X", "POST", "http://your-relay.com:9800/api/v1/tts/voices/sync"
    )
    assert "maya_cloned" in {voice["voice_id"] for voice in synced["voices"]}
    assert synced["synced"] == len(synced["voices"])
    assert server.json(server.url("/api/v1/status"))["status"] == "ok"
    listed = server.json(server.url("/api/v1/tts/voices"))
    assert "Maya (Cloned)" in {voice["display_name"] for voice in listed["voices"]}
    refused = server.post("/api/v1/tts/design", {"name": "Old", "description": "warm"}, status=400)
    assert refused["code"] == "design_not_supported"


def test_the_document_can_be_read_and_lists_every_door(server: Server) -> None:
    paths = server.json(server.url("/openapi.json"))["paths"]
    for path in ("/profiles", "/generate", "/history/stats", "/preview", f"{ONBOARDING}/clone"):
        assert path in paths


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("recording.mp4", 0, "status ready"),
        ("text.mp3", 1, "not a recording"),
        ("missing.wav", 1, "No such file"),
    ],
)
def test_the_script_of_the_onboarding_document(
    server: Server, name: str, status: int, says: str
) -> None:
    (server.folder / "text.mp3").write_bytes(b"This is a text file. " * 99)
    here = f"http://127.0.0.1:{server.port}"
    done = subprocess.run(
        [
            *(sys.executable, "test_voice_cloning.py", str(server.folder / name)),
            *("--api-url", here, "--chatterbox-url", here),
            *("--output", str(server.folder / "cloned.mp3")),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == status
    assert says in done.stdout + done.stderr


def test_the_demonstration_script_says_how_to_use_it() -> None:
    done = subprocess.run(
        [sys.executable, "demo_voice_packaging.py", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0
    assert "--voices" in done.stdout
