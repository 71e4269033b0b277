"""The commands by which the documents start a server, as they write them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.end_to_end.cli_process import ROOT, SECONDS, environment, wait_for


@contextmanager
def started(folder: Path, *command: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process of ``python …`` and the port that it said it listens on."""
    log = folder / "started.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=file, stderr=file, text=True, cwd=ROOT,
            env=environment(folder, PYTHONUNBUFFERED="1", **env),
        )  # fmt: skip
    try:
        listens = re.compile(r"(?:listens|running) on http://\S+?:(\d+)")
        wait_for(lambda: process.poll() is not None or bool(listens.search(log.read_text())))
        found = listens.search(log.read_text())
        assert found, log.read_text()[-3_000:]
        yield process, int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()


def ask(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def speaks(port: int) -> bool:
    """Whether words that are sent come back as sound."""
    with connect(f"ws://127.0.0.1:{port}/stream-tokens", open_timeout=SECONDS) as agent:
        agent.send(json.dumps({"token": "Hello world. ", "done": True}))
        return any(isinstance(message, bytes) for message in agent)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (("server.py",), ("--port", "0", "--backend", "tone", "--pool-size", "2")),
        (("-m", "server"), ("--port", "0")),
        (("-m", "backend.main"), ("--host", "127.0.0.1", "--port", "0")),
        (("-m", "app"), ("--port", "0")),
        (("-m", "uvicorn", "app.main:app"), ("--port", "0")),
    ],
    ids=lambda value: " ".join(value) if value[0] != "--port" else "",
)
def test_a_documented_command_starts_a_server_that_speaks(
    tmp_path: Path, command: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    more = {"TTS_BACKEND": "mock", "UVICORN_WORKERS": "2"} if "app" in command else {}
    with started(tmp_path, *command, *flags, **more) as (process, port):
        assert speaks(port)
        assert ask(f"http://127.0.0.1:{port}/health")[1]["status"] == "healthy"
        process.terminate()
        assert process.wait(SECONDS) in (0, -15)


def test_a_network_is_served_with_a_key_alone(tmp_path: Path) -> None:
    """`python -m backend.main --host 0.0.0.0 --port 8000`, and what uvicorn does not know."""
    done = subprocess.run(
        [sys.executable, "-m", "backend.main", "--host", "0.0.0.0", "--port", "0"],
        capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert "VOICE_SERVER_API_KEY" in done.stderr
    key = {"VOICE_SERVER_API_KEY": "a-key-that-nobody-guesses"}
    everywhere = ("--host", "0.0.0.0", "--port", "0")
    with started(tmp_path, "-m", "backend.main", *everywhere, **key) as (_, port):
        assert ask(f"http://127.0.0.1:{port}/profiles")[0] == 401
    with started(tmp_path, "-m", "uvicorn", "app.main:app", *everywhere) as (_, port):
        assert ask(f"http://127.0.0.1:{port}/profiles")[0] == 200
        if (address := _network_address()) is not None:
            status, body = ask(f"http://{address}:{port}/profiles")
            assert (status, body["code"]) == (403, "key_missing")


def test_the_documented_command_makes_the_database(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", "from database import init_db; init_db()"],
        check=True, timeout=SECONDS, cwd=ROOT / "backend", env=environment(tmp_path),
    )  # fmt: skip
    assert (tmp_path / "data" / "voice_server.db").stat().st_size > 0


def _network_address() -> str | None:
    """An address of this machine that is not loopback; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: datagrams have no handshake
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address
