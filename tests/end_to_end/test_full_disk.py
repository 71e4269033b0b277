"""A disk that is full: 507 at every door that writes, nothing partial, and speech goes on."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import Server, serving
from tests.recordings import container, tone
from tests.unit.test_manifest import DOCUMENTED, zipped
from voice_server.audio.encode import encode_whole

LIMIT = 2_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose files may not grow beyond 2 MB, which the system says as it says a full disk."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "long.mp3").write_bytes(container("mp3", "libmp3lame", seconds=60))
    (folder / "long.wav").write_bytes(encode_whole(tone(60).tobytes()))
    meta = json.dumps(DOCUMENTED)
    package = zipped({"meta.json": meta, "ref.wav": encode_whole(tone(60).tobytes())})
    (folder / "long.voicepkg.zip").write_bytes(package)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        with serving(folder) as running:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            running.recording("short.wav", 200)
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything_in(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.name.startswith("voice_server.db") and path.is_file()
    )


def test_every_door_that_writes_says_507_and_leaves_nothing(server: Server) -> None:
    profile = server.post("/profiles", {"name": "Full"})["id"]
    data = server.folder / "data"
    server.json(
        *("-X", "POST", server.url(f"/profiles/{profile}/samples"), "-F", "file=@short.wav")
    )
    before = everything_in(data)
    long = "word " * 1_000
    attempts = [
        ("-X", "POST", f"/profiles/{profile}/samples", "-F", "file=@long.mp3"),
        ("-X", "POST", "/upload", "-F", "audio=@long.mp3"),
        ("-X", "POST", "/preview", "-F", "audio=@long.mp3", "-F", "response_text=Hi."),
        ("-X", "POST", "/preview-from-voice", "-F", f"voice_id={profile}", "-F", f"response_text={long}"),
        ("-X", "POST", "/api/public/voice/onboarding/clone", "-F", "audio_file=@long.mp3"),
        ("-X", "POST", "/api/v1/tts/clone", "-F", "name=Long", "-F", "file=@long.mp3"),
        ("-X", "POST", "/api/v1/tts/voices/import", "-F", "file=@long.voicepkg.zip"),
        ("-X", "POST", "/upload", "-F", "audio=@long.wav"),
        (
            *("-X", "POST", "/generate", "-H", "Content-Type: application/json"),
            *("-d", json.dumps({"profile_id": profile, "text": long})),
        ),
    ]  # fmt: skip
    for attempt in attempts:
        named = [server.url(a) if a.startswith("/") else a for a in attempt]
        status, body = server.curl(*named)
        assert (status, json.loads(body)["code"]) == (507, "storage_full"), (attempt, body[:500])
        assert "free some space" in json.loads(body)["detail"]
        assert everything_in(data) == before, attempt


def test_speech_and_small_things_go_on(server: Server) -> None:
    assert len(server.sound("/tts", {"text": "Still here."})) > 2_000
    made = server.json(
        *(
            "-X",
            "POST",
            server.url("/api/v1/tts/clone"),
            "-F",
            "name=Short",
            "-F",
            "file=@short.wav",
        )
    )
    assert abs(server.heard_by_stream_tokens(made["voice_id"]) - 200) < 12
