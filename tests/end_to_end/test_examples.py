"""Everything that the docs give away to be copied runs: examples, the README's, the tutorial's."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import threading
import urllib.request
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.asyncio.client import connect

ROOT = Path(__file__).resolve().parents[2]
PAGE_ORIGIN = "http://localhost:8080"
RATE = 24_000
WORD = 0.2  # seconds of a word of hum


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)


def tutorial() -> dict[str, str]:
    """The programs of docs/backends.md, by the name that each gives itself."""
    programs = blocks(ROOT / "docs/backends.md", "python")
    return {re.findall(r'name = "(\w+)"', program)[0]: program for program in programs}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server that runs the tutorial's backends; gives its address without a scheme."""
    home = tmp_path_factory.mktemp("server")
    names = list(tutorial())
    lines = ["default: hum", f"start: [{', '.join(names)}]", "backends:"]
    for name, program in tutorial().items():
        (home / "backends" / name).mkdir(parents=True)
        (home / "backends" / name / "backend.py").write_text(program, encoding="utf-8")
        # numpy and msgpack, all that they need, are here: nothing has to be installed.
        lines += [f"  {name}:", f"    python: {sys.executable}"]
    (home / "backends.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "voices").mkdir()
    write_tone(home / "voices" / "alice.wav", 330.0)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("VOICE_SERVER_")},
        "VOICE_SERVER_BACKENDS_FILE": str(home / "backends.yaml"),
        "VOICE_SERVER_DATA_DIR": str(home / "data"),
        "VOICE_SERVER_VOICE_SAMPLES_DIR": str(home / "voices"),
        "VOICE_SERVER_ALLOWED_ORIGINS": PAGE_ORIGIN,
    }
    log = open(home / "log", "w+", encoding="utf-8")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "server.py", "--port", "0"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://(\S+)", process.stdout.readline())
        log.seek(0)
        assert found, log.read()
        yield found[1]
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def write_tone(path: Path, hertz: float) -> None:
    time = np.arange(3 * RATE) / RATE
    samples = (8000 * np.sin(2 * np.pi * hertz * time)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def run(program: Path | str, *arguments: str, folder: Path) -> str:
    """Run a program as a reader would; its output."""
    command = [sys.executable, str(program), *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_of(path: Path) -> float:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return file.getnframes() / RATE


async def speak(
    address: str, text: str, config: dict[str, Any] | None = None, **options: Any
) -> tuple[bytes, list[dict[str, Any]]]:
    """One turn: its sound and its messages."""
    sound, messages = b"", []
    async with asyncio.timeout(60):
        async with connect(f"ws://{address}/stream-tokens", **options, open_timeout=60) as socket:
            if config:
                await socket.send(json.dumps(config))
            for token in re.findall(r"(?s).{1,3}", text):
                await socket.send(json.dumps({"token": token}))
            await socket.send(json.dumps({"done": True}))
            async for message in socket:
                if isinstance(message, bytes):
                    sound += message
                else:
                    messages.append(json.loads(message))
    return sound, messages


def pitch_of(sound: bytes) -> float:
    samples = np.frombuffer(sound, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.fft.rfftfreq(len(samples), 1 / RATE)[spectrum.argmax()])


# -- examples/ and the README --------------------------------------------------------------------


def test_a_language_models_stream_becomes_a_file(server: str, tmp_path: Path) -> None:
    url, path = f"ws://{server}/stream-tokens", tmp_path / "said.wav"
    output = run(ROOT / "examples/llm_stream.py", url, str(path), folder=tmp_path)
    for sentence in ("Hello!", "I am speaking while I am still thinking.", "Can you hear it?"):
        assert repr(sentence) in output
    assert seconds_of(path) == pytest.approx(13 * WORD, abs=0.05)


def test_an_interruption_tells_which_words_were_heard(server: str, tmp_path: Path) -> None:
    output = run(ROOT / "examples/barge_in.py", f"ws://{server}/stream-tokens", folder=tmp_path)
    heard, rest, second = output.splitlines()
    spoken = re.findall(r"heard \((\d+) ms\):\s+'(.*)'", heard)[0]
    remaining = re.findall(r"not heard:\s+'(.*)'", rest)[0]
    assert int(spoken[0]) >= 1400
    assert len(spoken[1].split()) >= 3
    source = (ROOT / "examples/barge_in.py").read_text("utf-8")
    answer = "".join(re.findall(r'^    "(.*)"$', source, re.M))
    assert answer.startswith(spoken[1] + remaining.rstrip())
    assert "second turn was spoken" in second


def test_the_ten_lines_of_the_readme_speak(server: str, tmp_path: Path) -> None:
    [program] = blocks(ROOT / "README.md", "python")
    assert "localhost:8000" in program
    program = program.replace("localhost:8000", server)
    (tmp_path / "ten_lines.py").write_text(program, encoding="utf-8")
    run("ten_lines.py", folder=tmp_path)
    # "Hello! You hear me while I think."
    assert seconds_of(tmp_path / "hello.wav") == pytest.approx(7 * WORD, abs=0.05)


def test_the_page_needs_nothing_but_itself() -> None:
    page = (ROOT / "examples/browser.html").read_text("utf-8")
    assert not re.findall(r"https?://|\bsrc=|\bhref=|@import|\bimport\(", page)


def test_the_page_is_served_as_its_instructions_say_and_let_in(server: str) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(ROOT / "examples"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{files.server_port}/browser.html"
            with urllib.request.urlopen(url, timeout=60) as answer:
                page = answer.read().decode()
        finally:
            files.shutdown()
            thread.join(60)
    assert re.findall(r'id="url" value="ws://[^"]+(/stream-tokens)"', page) == ["/stream-tokens"]
    sound, messages = asyncio.run(speak(server, "Hello there.", origin=PAGE_ORIGIN))
    assert len(sound) / 2 / RATE == pytest.approx(2 * WORD, abs=0.05)
    assert messages[-1]["type"] == "done"


def test_a_page_from_elsewhere_is_refused(server: str) -> None:
    for origin in ("null", "http://localhost:8081", "https://example.com"):
        with pytest.raises(websockets.InvalidStatus) as refusal:
            asyncio.run(speak(server, "Hello there.", origin=origin))
        assert refusal.value.response.status_code == 403


# -- the tutorial of docs/backends.md ------------------------------------------------------------


def test_the_first_backend_beeps_once_for_each_word(server: str) -> None:
    sound, messages = asyncio.run(speak(server, "One two three.", {"backend": "hum"}))
    assert len(sound) / 2 / RATE == pytest.approx(3 * WORD, abs=0.05)
    assert [m["sentence"] for m in messages if m["type"] == "generating"] == ["One two three."]


def test_the_second_backend_takes_the_pitch_of_a_dropped_recording(server: str) -> None:
    config = {"backend": "mimic", "voice": "alice", "timestamps": True, "opts": {"speed": 2}}
    sound, messages = asyncio.run(speak(server, "One two three.", config))
    assert pitch_of(sound) == pytest.approx(330.0, abs=10)
    assert len(sound) / 2 / RATE == pytest.approx(3 * WORD / 2, abs=0.05)
    words = [word for m in messages if m["type"] == "words" for word in m["words"]]
    assert "".join(word["text"] for word in words) == "One two three."
    assert math.isclose(words[-1]["end_ms"], len(sound) / 48, abs_tol=30)


def test_the_second_backend_refuses_a_wrong_option_in_words(server: str) -> None:
    sound, messages = asyncio.run(speak(server, "One.", {"backend": "mimic", "opts": {"speed": 9}}))
    assert not sound
    [error] = [m for m in messages if m["type"] == "error"]
    assert error["code"] == "bad_option"
    assert "0.25 to 4" in error["msg"]


def test_the_third_backend_sings_to_many_at_once(server: str) -> None:
    async def sing_together() -> list[tuple[bytes, list[dict[str, Any]]]]:
        config = {"backend": "choir", "seed": 7}
        return await asyncio.gather(*(speak(server, "La la la.", config) for _ in range(4)))

    songs = asyncio.run(sing_together())
    assert len(songs[0][0]) / 2 / RATE == pytest.approx(len("La la la.") * 0.08, abs=0.05)
    assert len({sound for sound, _ in songs}) == 1
