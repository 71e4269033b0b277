"""Models in and out of memory, and recordings written down, by real worker processes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import Server, serving
from tests.end_to_end.cli_process import running_server, wait_for
from tests.recordings import container, wav

# Writes down what it hears as the whisper backend does; hears a tone, and says its pitch.
LISTENER = """
import json, os, wave
from pathlib import Path
import numpy as np
import voice_worker as vw

class Whisper(vw.Backend):
    name = "whisper"

    def load(self, options):
        return vw.BackendInfo(sample_rate=24_000, languages=(), options=("answer", "words"))

    def synthesize(self, job):
        with wave.open(str(job.voice.samples[0].path)) as file:
            pcm = np.frombuffer(file.readframes(1 << 24), "<i2").astype(float)
        pitch = np.argmax(np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))) * 24_000 / len(pcm)
        if 390 < pitch < 410:
            os._exit(9)
        if 490 < pitch < 510:
            raise vw.BackendError("no such language", code="unsupported_language")
        yield np.zeros(1, np.float32)
        words = [{"word": "hertz", "start": 0.0, "end": 1.0, "probability": 1.0}]
        text = f" A tone of {round(pitch, -1):.0f} hertz."
        segments = [{"start": 0.0, "end": 1.0, "text": text, "words": words if job.params["words"] else []}]
        told = {"text": text, "language": job.params.get("language", "xx"), "duration": 1.0, "segments": segments}
        Path(job.params["answer"]).write_text(json.dumps(told))

if __name__ == "__main__":
    vw.serve(Whisper())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    adapter = folder / "listener"
    adapter.mkdir()
    (adapter / "backend.py").write_text(LISTENER)
    entry = f"{{path: listener, python: {sys.executable}}}"
    (folder / "backends.yaml").write_text(
        f"default: tone\nbackends:\n  tone: {{python: {sys.executable}}}\n  whisper: {entry}\n"
    )
    with serving(folder) as running:
        for name, pitch in (("a", 200), ("killer", 400), ("refused", 500)):
            (folder / f"{name}.wav").write_bytes(wav(3, pitch))
        (folder / "film.mp4").write_bytes(container("mp4", "aac", video="mpeg4", pitch=300))
        yield running


def transcribed(server: Server, *form: str, status: int = 200) -> dict[str, object]:
    told: dict[str, object] = server.json(
        "-X", "POST", server.url("/transcribe"), *form, status=status
    )
    return told


def test_a_recording_is_written_down_as_documented(server: Server) -> None:
    told = server.json(
        *("-X", "POST", "http://localhost:8000/transcribe"),
        *("-F", "file=@a.wav", "-F", "language=en"),
    )
    assert told["text"] == "A tone of 200 hertz."
    assert told["duration"] == pytest.approx(3.0, abs=0.01)
    assert told["segments"] is None
    assert told["language"] == "en"


def test_verbose_tells_segments_and_words(server: Server) -> None:
    for form in (("-F", "file=@film.mp4", "-F", "verbose=true"),):
        told = transcribed(server, *form)
        assert told["text"] == "A tone of 300 hertz."
        segments = told["segments"]
        assert isinstance(segments, list)
        assert segments[0]["words"][0]["word"] == "hertz"


def test_cloning_without_a_transcript_writes_it_down(server: Server) -> None:
    made = server.json(
        *("-X", "POST", server.url("/api/v1/tts/clone"), "-F", "name=Heard", "-F", "file=@a.wav")
    )
    assert made["ref_text"] == "A tone of 200 hertz."
    profile = server.post("/profiles", {"name": "Listened"})["id"]
    sample = server.json(
        *("-X", "POST", server.url(f"/profiles/{profile}/samples"), "-F", "file=@a.wav")
    )
    assert sample["reference_text"] == "A tone of 200 hertz."
    assert sample["transcript_note"] == ""


def test_a_transcriber_that_refuses_costs_the_text_and_not_the_voice(server: Server) -> None:
    assert (
        transcribed(server, "-F", "file=@refused.wav", status=400)["code"] == "unsupported_language"
    )
    made = server.json(
        *("-X", "POST", server.url("/api/public/voice/onboarding/clone")),
        *("-F", "audio_file=@refused.wav"),
    )
    assert made["transcript"] == ""
    assert "could not be transcribed" in made["transcript_note"]


def test_a_transcriber_that_dies_is_replaced(server: Server) -> None:
    assert transcribed(server, "-F", "file=@killer.wav", status=502)["code"] in (
        "poison_text",
        "worker_died",
    )
    assert transcribed(server, "-F", "file=@a.wav")["text"] == "A tone of 200 hertz."


def test_what_is_no_recording_is_not_written_down(server: Server) -> None:
    (server.folder / "text.mp3").write_text("text, whatever its name says " * 50)
    assert transcribed(server, "-F", "file=@text.mp3", status=400)["code"] == "not_audio"


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def workers(port_holder: Server) -> list[int]:
    """Processes that run the tone backend for this server, by their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if b"tone/backend.py" in command and str(port_holder.folder).encode() in environment:
                found.append(int(folder.name))
    return found


def test_an_unloaded_model_has_no_process_and_comes_back_when_it_is_needed(server: Server) -> None:
    before = workers(server)
    assert before
    (model,) = [m for m in server.json(server.url("/models"))["models"] if m["backend"] == "tone"]
    assert model["state"] == "loaded"
    assert model["memory_mb"] > 5
    voices = server.json(server.url("/voices?backend=tone"))
    assert voices["voices"]
    done = server.json("-X", "POST", "http://localhost:8000/models/unload")
    assert done["models"][0]["state"] == "unloaded"
    assert not [pid for pid in before if alive(pid)]
    (model,) = server.json(server.url("/models"))["models"]
    assert (model["state"], model["memory_mb"], model["device"]) == ("unloaded", 0, "")
    # What it speaks with is still to be chosen from.
    assert server.json(server.url("/voices?backend=tone")) == voices
    assert server.json(server.url("/health"))["model_loaded"] is False
    assert len(server.sound("/tts", {"text": "Back again."})) > 2_000
    assert server.json(server.url("/models"))["models"][0]["state"] == "loaded"
    again = server.json("-X", "POST", server.url("/models/unload?backend=tone"))
    assert again["models"][0]["state"] == "unloaded"
    loaded = server.json("-X", "POST", server.url("/models/load"))
    assert loaded["models"][0]["state"] == "loaded"


def test_a_model_is_unloaded_only_after_its_turns(server: Server) -> None:
    server.json("-X", "POST", server.url("/models/load"))
    with server.socket("/stream-tokens") as socket:
        socket.send(json.dumps({"token": "One two three. "}))
        while isinstance(socket.recv(60), str):
            pass
        answers: list[object] = []
        thread = threading.Thread(
            target=lambda: answers.append(server.json("-X", "POST", server.url("/models/unload")))
        )
        thread.start()
        models = server.url("/models")
        wait_for(lambda: server.json(models)["models"][0]["state"] == "unloading")
        assert not answers
        socket.send(json.dumps({"token": "Four five six.", "done": True}))
        rest = b"".join(m for m in socket if isinstance(m, bytes))
        assert len(rest) > 4_000
    thread.join(60)
    assert answers
    server.json("-X", "POST", server.url("/models/load"))


def test_a_socket_that_stays_open_outlives_its_model(server: Server) -> None:
    def said(text: str) -> int:
        socket.send(json.dumps({"token": text, "done": True}))
        sound = 0
        while True:
            message = socket.recv(60)
            if isinstance(message, bytes):
                sound += len(message)
                continue
            told = json.loads(message)
            assert told["type"] != "error", told
            if told["type"] == "done":
                return sound

    with server.socket("/stream-tokens") as socket:
        socket.send(json.dumps({"keep_open": True}))
        assert json.loads(socket.recv(60))["type"] == "ready"
        for text in ("Configured before.", "Spoken before."):
            server.json("-X", "POST", server.url("/models/unload"))
            assert said(text) > 2_000


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/models/load?backend=none", 404, "unknown_backend"),
        ("/models/unload?backend=none", 404, "unknown_backend"),
        ("/models/load?model_size=huge", 400, "bad_model_size"),
        ("/models/load?model_size=0.6B", 400, "bad_model_size"),
    ],
)
def test_what_cannot_be_loaded_says_why(server: Server, path: str, status: int, code: str) -> None:
    assert server.json("-X", "POST", server.url(path), status=status)["code"] == code


def test_a_model_that_nobody_uses_leaves_memory(tmp_path: Path) -> None:
    # Not ``serving``: it may be ready and unloaded again between two looks of that.
    unload = {"VOICE_SERVER_MODEL_IDLE_UNLOAD": "0.5"}
    with running_server(tmp_path, "--backend", "tone", **unload) as (_, port):
        server = Server(port, tmp_path)
        models = server.url("/models")
        wait_for(lambda: server.json(models)["models"][0]["state"] == "unloaded")
        # Who sends traffic to the ready alone would else never send the turn that loads it.
        [tone] = server.json(server.url("/ready"))["backends"].values()
        assert tone["ready"] is False
        assert "the next turn loads it" in tone["reason"]
        assert server.json(server.url("/api/v1/status"))["status"] == "ok"
        assert len(server.sound("/tts", {"text": "Here I am."})) > 2_000


def test_without_a_transcriber_the_remedy_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    with serving(tmp_path) as server:
        refused = transcribed(server, "-F", "file=@a.wav", status=503)
        assert refused["code"] == "backend_not_installed"
        assert "cli.py backends install whisper" in str(refused["detail"])


def test_openai_s_clients_have_it_written_down_in_five_formats(server: Server) -> None:
    def told(*form: str) -> str:
        asked = ("-F", "file=@a.wav", "-F", "model=whisper-1", *form)
        status, body = server.curl("-X", "POST", server.url("/v1/audio/transcriptions"), *asked)
        assert status == 200, body
        return body.decode()

    said = "A tone of 200 hertz."
    assert json.loads(told()) == {"text": said}
    assert told("-F", "response_format=text") == f"{said}\n"
    assert told("-F", "response_format=srt") == f"1\n00:00:00,000 --> 00:00:01,000\n{said}\n"
    vtt = told("-F", "response_format=vtt")
    assert vtt == f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{said}\n"
    verbose = json.loads(told("-F", "response_format=verbose_json", "-F", "language=en"))
    assert (verbose["text"], verbose["language"]) == (said, "en")
    assert verbose["duration"] == pytest.approx(3.0, abs=0.01)
    assert verbose["words"][0]["word"] == "hertz"
    asked = ("-F", "file=@a.wav", "-F", "response_format=docx")
    status, body = server.curl("-X", "POST", server.url("/v1/audio/transcriptions"), *asked)
    assert (status, json.loads(body)["error"]["param"]) == (400, "response_format")
