"""``POST /transcribe`` and every door that clones, with the real engine behind the real server."""

from __future__ import annotations

import json
import threading

from tests.end_to_end.catalogue_server import Server


def test_the_documented_call_writes_down_what_is_said(server: Server, speech: bytes) -> None:
    (server.folder / "audio.wav").write_bytes(speech)
    told = server.json(
        *("-X", "POST", "http://localhost:8000/transcribe"),
        *("-F", "file=@audio.wav", "-F", "language=en"),
    )
    assert told["text"]
    assert abs(told["duration"] - len(speech) / 48_000) < 0.2
    again = server.json(
        *("-X", "POST", server.url("/transcribe"), "-F", "file=@audio.wav"),
        *("-F", "language=en", "-F", "verbose=true"),
    )
    words = [word for segment in again["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in words).strip() == again["text"]


def test_several_ask_at_once_and_each_is_told_its_own(server: Server, speech: bytes) -> None:
    (server.folder / "whole.wav").write_bytes(speech)
    told: list[float] = []

    def ask(name: str) -> None:
        answer = server.json("-X", "POST", server.url("/transcribe"), "-F", f"file=@{name}")
        told.append(round(answer["duration"], 1))

    names = ["whole.wav", *(server.recording(f"{n}.wav", 150 + n) for n in range(3))]
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(told) == [3.0, 3.0, 3.0, round(len(speech) / 48_000, 1)]


def test_a_clone_without_a_transcript_gets_one(server: Server, speech: bytes) -> None:
    (server.folder / "me.wav").write_bytes(speech)
    made = server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "file=@me.wav", "-F", "name=Me")
    )
    assert made["ref_text"]
    onboarded = server.json(
        *("-X", "POST", server.url("/api/public/voice/onboarding/clone")),
        *("-F", "audio_file=@me.wav"),
    )
    assert not onboarded["transcript_note"]
    samples = server.json(server.url(f"/profiles/{onboarded['voice_id']}/samples"))
    assert samples[0]["reference_text"] == made["ref_text"]


def test_a_wrong_file_or_language_is_refused_and_the_next_is_heard(
    server: Server, speech: bytes
) -> None:
    (server.folder / "text.mp3").write_text("This is no recording.")
    (server.folder / "right.wav").write_bytes(speech)
    for form, code in (
        (("-F", "file=@text.mp3"), "not_audio"),
        (("-F", "file=@right.wav", "-F", "language=tlh"), "unsupported_language"),
    ):
        status, body = server.curl("-X", "POST", server.url("/transcribe"), *form)
        assert (status, json.loads(body)["code"]) == (400, code)
    assert server.json("-X", "POST", server.url("/transcribe"), "-F", "file=@right.wav")["text"]


def test_it_cannot_be_spoken_with(server: Server) -> None:
    status, body = server.curl(
        *("-X", "POST", server.url("/tts"), "-H", "Content-Type: application/json"),
        *("-d", '{"text": "Hello.", "backend": "whisper"}'),
    )
    assert (status, json.loads(body)["code"]) == (404, "unknown_backend")
