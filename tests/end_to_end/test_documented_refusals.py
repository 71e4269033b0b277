"""What the documents' doors answer to what is wrong: a code, and nothing is left of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.catalogue_server import Server, serving
from tests.recordings import container, wav

ONBOARDING = "/api/public/voice/onboarding"
WRONG = {
    "empty.wav": b"",
    "text.mp3": b"This is a text file, whatever its name says. " * 99,
    "short.wav": wav(1),
    "mute.mp4": container("mp4", None, video="mpeg4"),
    "playlist.wav": b"ffconcat version 1.0\nfile /etc/passwd\n",
}
CODES = {
    "empty.wav": "empty_file",
    "text.mp3": "not_audio",
    "short.wav": "audio_too_short",
    "mute.mp4": "no_sound",
    "playlist.wav": "not_audio",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("refusals")) as running:
        running.recording("sample.wav", 190)
        yield running


@pytest.fixture(scope="module")
def voice(server: Server) -> str:
    """A voice that has said nothing yet."""
    made = server.url("/api/v1/tts/clone")
    return str(
        server.json("-X", "POST", made, "-F", "file=@sample.wav", "-F", "name=Quiet")["voice_id"]
    )


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    ("path", "field", "others"),
    [
        (f"{ONBOARDING}/clone", "audio_file", ()),
        ("/preview", "audio", ("-F", "response_text=Hi.")),
        ("/upload", "audio", ()),
        ("/api/v1/tts/clone", "file", ("-F", "name=Wrong")),
    ],
)
def test_every_door_refuses_what_is_no_recording(
    server: Server, name: str, path: str, field: str, others: tuple[str, ...]
) -> None:
    (server.folder / name).write_bytes(WRONG[name])
    before = server.json(server.url("/api/v1/tts/voices"))["total"]
    answer = server.json(
        "-X", "POST", server.url(path), "-F", f"{field}=@{name}", *others, status=400
    )
    assert answer["code"] == CODES[name]
    assert len(answer["detail"]) > 20
    assert server.json(server.url("/api/v1/tts/voices"))["total"] == before


def test_a_file_of_51_mb_and_one_of_six_minutes_are_refused(server: Server) -> None:
    with open(server.folder / "large.wav", "wb") as file:
        file.truncate(51 * 1024 * 1024 + 1024)
    (server.folder / "long.flac").write_bytes(container("flac", "flac", seconds=360))
    url = server.url(f"{ONBOARDING}/clone")
    large = server.json("-X", "POST", url, "-F", "audio_file=@large.wav", status=413)
    assert large["code"] == "file_too_large"
    assert "the maximum is 50 MB. Compress or trim" in large["detail"]
    text = server.json("-X", "POST", url, "-F", "audio_file=no file", status=422)
    assert text["detail"].startswith("audio_file › expected a file")
    answer = server.json("-X", "POST", url, "-F", "audio_file=@long.flac", status=400)
    assert answer["code"] == "audio_too_long"


def test_a_package_that_is_too_large_is_told_what_to_do_about_a_voice(server: Server) -> None:
    # The second is refused while it comes in, over the limit of the whole form.
    url = server.url("/api/v1/tts/voices/import")
    for size in (128 * 2**20 + 1, 130 * 2**20):
        with open(server.folder / "large.voicepkg.zip", "wb") as file:
            file.truncate(size)
        upload = ("-X", "POST", url, "-F", "file=@large.voicepkg.zip")
        answer = server.json(*upload, status=413)
        assert answer["code"] == "package_too_large"
        assert answer["detail"].startswith("a voice package has at most 128 MB")
        assert "delete some of the voice's samples" in answer["detail"]


def test_a_voice_with_more_recordings_than_a_package_takes_is_not_exported(server: Server) -> None:
    (server.folder / "me.wav").write_bytes(wav(3))
    form = ("-F", "file=@me.wav", "-F", "name=Many")
    voice_id = server.json("-X", "POST", server.url("/api/v1/tts/clone"), *form)["voice_id"]
    more = server.url(f"/profiles/{voice_id}/samples")
    for _ in range(24):
        server.json("-X", "POST", more, "-F", "file=@me.wav", "-F", "reference_text=Hi.")
    answer = server.json(server.url(f"/api/v1/tts/voices/{voice_id}/package"), status=413)
    assert answer["code"] == "package_too_large"
    assert "at most 24 recordings" in answer["detail"]
    server.json("-X", "DELETE", server.url(f"/profiles/{voice_id}"))


@pytest.mark.parametrize("path", ["/profiles", "/projects"])
def test_an_empty_name_is_told_of_whatever_it_is_the_name(server: Server, path: str) -> None:
    named = ("-X", "POST", server.url(path), "-H", "Content-Type: application/json")
    answer = server.json(*named, "-d", '{"name": " "}', status=400)
    assert answer["detail"] == "name › expected one that is not empty"


@pytest.mark.parametrize("language", ["the english", "english (UK)", "e", "en_GB", "en\n"])
def test_a_voice_is_made_in_a_language_that_can_be_spoken_or_in_none(
    server: Server, language: str
) -> None:
    body = ("-H", "Content-Type: application/json", "-d")
    made = server.post("/profiles", {"name": f"Of {language!r}", "language": ""})
    changed = server.url(f"/profiles/{made['id']}")
    ways = (
        (
            "-X",
            "POST",
            server.url("/profiles"),
            *body,
            json.dumps({"name": "x", "language": language}),
        ),
        ("-X", "PUT", changed, *body, json.dumps({"language": language})),
        ("-X", "POST", server.url("/tts"), *body, json.dumps({"text": "x", "language": language})),
    )
    for way in ways:
        detail = server.json(*way, status=422)["detail"]
        assert detail.startswith("language › expected a tag such as 'en' or 'pt-BR'")
    answer = server.json("-X", "PUT", changed, *body, '{"language": "pt-BR"}')
    assert answer["language"] == "pt-BR"
    assert server.json("-X", "PUT", changed, *body, '{"language": ""}')["language"] == ""


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("-X", "POST", "/profiles", "-d", "{"), 400, "invalid_json"),
        (("-X", "POST", "/profiles", "-d", '{"name": ""}'), 400, "bad_name"),
        (("-X", "POST", "/profiles", "-d", '{"name": "a\\u0000b"}'), 400, "bad_text"),
        (("-X", "POST", "/profiles", "-d", '{"name": "a", "colour": 1}'), 422, "invalid_request"),
        (("-X", "POST", "/profiles", "-F", "name=x"), 400, "invalid_json"),
        (("/profiles/nobody",), 404, "unknown_voice"),
        (("/profiles/..%2f..%2fetc%2fpasswd",), 404, None),
        (("/profiles/nobody/samples",), 404, "unknown_voice"),
        (("-X", "DELETE", "/profiles/nobody"), 404, "unknown_voice"),
        (("-X", "DELETE", "/profiles/samples/nothing"), 404, "unknown_sample"),
        (("-X", "POST", "/generate", "-d", '{"profile_id": "nobody", "text": "x"}'), 404, "unknown_voice"),
        (("/history/nothing",), 404, "unknown_generation"),
        (("/history?limit=0",), 422, "invalid_request"),
        (("/history?limit=many",), 422, "invalid_request"),
        (("/history?since=yesterday",), 422, "invalid_request"),
        (("/audio/..%2fvoice_server.db",), 404, None),
        (("/previews/nothing.wav",), 404, "unknown_preview"),
        (("-X", "POST", "/preview-from-voice", "-F", "voice_id=nobody", "-F", "response_text=x"), 404, "unknown_voice"),
        (("-X", "POST", "/preview", "-F", "response_text=x"), 422, "invalid_request"),
        (("-X", "POST", "/preview", "-F", "audio=text", "-F", "response_text=x"), 422, "invalid_request"),
        (("-X", "POST", f"{ONBOARDING}/clone"), 422, "invalid_request"),
        ((f"{ONBOARDING}/status/nobody",), 404, "unknown_voice"),
        (("/api/v1/tts/voices/nobody/package",), 404, "unknown_voice"),
        (("-X", "POST", "/api/v1/tts/voices/import", "-F", "file=@sample.wav"), 400, "bad_package"),
        (("-X", "POST", "/api/v1/tts/voices/import?on_conflict=ask", "-F", "file=@sample.wav"), 422, "invalid_request"),
        (("-X", "POST", "/api/v1/tts/clone", "-F", "file=@sample.wav", "-F", "name=A", "-F", "voice_id=../a"), 400, "bad_voice_id"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_answered_with_a_code(
    server: Server, arguments: tuple[str, ...], status: int, code: str | None
) -> None:
    named = [server.url(a) if a.startswith("/") else a for a in arguments]
    if "-d" in named:
        named += ["-H", "Content-Type: application/json"]
    answer = server.json(*named, status=status)
    if code:
        assert answer["code"] == code
        assert answer["detail"]


def test_a_name_is_taken_in_capitals_too(server: Server) -> None:
    server.post("/profiles", {"name": "taken"})
    again = ("-H", "Content-Type: application/json", "-d", '{"name": "TAKEN"}')
    refused = server.json("-X", "POST", server.url("/profiles"), *again, status=409)
    assert refused["code"] == "name_taken"


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/generate", ("-H", "Content-Type: application/json", "-d", '{"profile_id": "VOICE", "text": "..."}')),
        ("/preview-from-voice", ("-F", "voice_id=VOICE", "-F", "response_text=...")),
        ("/preview", ("-F", "audio=@sample.wav", "-F", "response_text=...")),
        ("/api/v1/tts/synthesize", ("-H", "Content-Type: application/json", "-d", '{"voice_id": "VOICE", "text": "..."}')),
        (f"{ONBOARDING}/test/VOICE", ("-F", "text=...")),
    ],
)  # fmt: skip
def test_a_text_in_which_nothing_can_be_spoken_is_refused_and_not_kept(
    server: Server, voice: str, path: str, call: tuple[str, ...]
) -> None:
    named = [part.replace("VOICE", voice) for part in (server.url(path), *call)]
    answer = server.json("-X", "POST", *named, status=400)
    assert (answer["code"], answer["detail"]) == ("no_text", "nothing in this text can be spoken")
    assert server.json(server.url(f"/history?profile_id={voice}"))["total"] == 0


def test_a_text_of_spaces_is_none(server: Server, voice: str) -> None:
    asked = ("-H", "Content-Type: application/json", "-d")
    body = json.dumps({"profile_id": voice, "text": " "})
    answer = server.json("-X", "POST", server.url("/generate"), *asked, body, status=400)
    assert answer["code"] == "no_text"


def test_a_seed_that_is_too_large_is_told_how_large_it_may_be(server: Server) -> None:
    asked = ("-H", "Content-Type: application/json", "-d", json.dumps({"text": "x", "seed": 2**63}))
    answer = server.json("-X", "POST", server.url("/tts"), *asked, status=422)
    assert f"an integer ≥ 0 and < {2**63}, got {2**63}" in answer["detail"]


def test_of_two_deletes_at_once_one_finds_nothing(server: Server) -> None:
    profile = server.post("/profiles", {"name": "Twice deleted"})["id"]
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(
                server.curl("-X", "DELETE", server.url(f"/profiles/{profile}"))[0]
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200, 404]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_json"),
        (b"{}", "binary_message"),
        ("[]", "bad_request"),
        ('{"type": "sing", "data": {}}', "bad_request"),
        ('{"type": "generate_preview", "data": []}', "bad_request"),
        ('{"type": "generate_preview", "data": {}}', "invalid_request"),
        (
            '{"type": "generate_preview", "data": {"text": "x", "session_id": "../x"}}',
            "unknown_session",
        ),
        (
            '{"type": "generate_preview", "data": {"text": "x", "session_id": "abc"}}',
            "unknown_session",
        ),
        ('{"type": "save_voice", "data": {"name": 7}}', "invalid_request"),
        ('{"type": "save_voice", "data": {"name": "  "}}', "no_session"),
    ],
)
def test_a_wrong_message_is_answered_and_the_socket_lives(
    server: Server, message: str | bytes, code: str
) -> None:
    with server.socket("/ws") as socket:
        socket.send(message)
        answer = json.loads(socket.recv(60))
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        socket.send('{"type": "ping"}')
        assert json.loads(socket.recv(60))["type"] == "pong"


def test_nothing_is_left_of_refused_uploads(server: Server) -> None:
    """Runs last in this file: whatever the tests above sent in vain must be gone."""
    voices = server.json(server.url("/profiles"))
    on_disk = {path.parent.name for path in (server.folder / "data" / "voices").glob("*/*.wav")}
    assert on_disk <= {voice["id"] for voice in voices}
    assert not list((server.folder / "data").rglob(".tmp-*"))
