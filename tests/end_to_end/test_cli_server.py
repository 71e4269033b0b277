"""server.py as an operator runs it, and client.py against it: real processes, the tone engine."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import wave
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from tests.end_to_end.cli_process import (
    ROOT,
    SECONDS,
    environment,
    run_cli,
    running_server,
    wait_for,
)
from voice_server.audio.decode import Limits, decode

# Several processes each, which a busy machine starts slowly.
pytestmark = pytest.mark.timeout(400)


def get(port: int, path: str, key: str | None = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def is_ready(port: int) -> bool:
    return get(port, "/ready")[0] == 200


def client(port: int, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "client.py", "--url", f"ws://localhost:{port}/stream-tokens", "--no-play",
         *flags],
        capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    """The processes of this server's workers, without those that have just died."""
    found = set()
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie's error is one of these
            if any("_bootstrap" in argument for argument in child.cmdline()):
                found.add(child.pid)
    return found


def failed_start(folder: Path, *flags: str, **env: str) -> str:
    """What a server says that refuses to start because of how it was asked."""
    done = subprocess.run(
        [sys.executable, "server.py", *flags], capture_output=True, text=True, timeout=SECONDS,
        cwd=ROOT, env=environment(folder, **env), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_client_speaks_through_the_server(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with running_server(tmp_path, "--backend", "tone", "--pool-size", "2") as (process, port):
        wait_for(lambda: is_ready(port))
        assert len(workers_of(process)) == 2
        done = client(port, "--text", "Hello there. World.", "--output", str(path), "--opt",
                      "speed=1.2", "--timestamps")  # fmt: skip
        assert done.returncode == 0, done.stderr
        wrong = client(port, "--voice", "nobody", "--text", "Hello.")
    assert "generating  'Hello there.'" in done.stdout
    assert "first sound" in done.stdout
    with wave.open(str(path)) as file:
        assert any(file.readframes(file.getnframes()))
    assert wrong.returncode == 1
    assert "nobody" in wrong.stderr
    assert "(unknown_voice)" in wrong.stderr


def test_several_engines_run_at_once_and_the_first_is_the_default(tmp_path: Path) -> None:
    with running_server(tmp_path, "--backend", "chaos", "--backend", "tone") as (_, port):
        wait_for(lambda: is_ready(port))
        by_default = client(port, "--text", "Hello.", "--timestamps")
        chosen = client(port, "--text", "Hello.", "--timestamps", "--backend", "tone")
    assert "chaos · voice" in by_default.stdout
    assert "tone · voice" in chosen.stdout


def test_sigterm_lets_a_turn_finish_and_ends_with_status_0(tmp_path: Path) -> None:
    with running_server(tmp_path, "--backend", "chaos") as (process, port):
        wait_for(lambda: is_ready(port))
        workers = workers_of(process)
        with connect(f"ws://127.0.0.1:{port}/stream-tokens", open_timeout=SECONDS) as socket:
            socket.send(json.dumps({"timestamps": True}))
            socket.send(json.dumps({"token": "slow slow slow one. " * 3, "done": True}))
            while not isinstance(socket.recv(SECONDS), bytes):
                pass
            process.send_signal(signal.SIGTERM)
            messages: list[dict[str, Any]] = []
            while not messages or messages[-1]["type"] != "done":
                message = socket.recv(SECONDS)
                if isinstance(message, str):
                    messages.append(json.loads(message))
        assert process.wait(SECONDS) == 0
    assert not [message for message in messages if message["type"] == "error"]
    assert messages[-1]["stats"]["segments"] == 3
    assert not [pid for pid in workers if psutil.pid_exists(pid)]


def test_a_second_signal_does_not_wait_for_turns(tmp_path: Path) -> None:
    with running_server(tmp_path, "--backend", "chaos") as (process, port):
        wait_for(lambda: is_ready(port))
        workers = workers_of(process)
        with connect(f"ws://127.0.0.1:{port}/stream-tokens", open_timeout=SECONDS) as socket:
            socket.send(json.dumps({"token": "slow " * 2000 + "."}))
            while not isinstance(socket.recv(SECONDS), bytes):
                pass
            process.send_signal(signal.SIGINT)
            wait_for(lambda: "SIGINT: finishing" in (tmp_path / "server.log").read_text())
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
    wait_for(lambda: not [pid for pid in workers if psutil.pid_exists(pid)])


@pytest.mark.parametrize("by", ["command", "SIGHUP"])
def test_workers_are_replaced_one_by_one_while_the_server_speaks(tmp_path: Path, by: str) -> None:
    with running_server(tmp_path, "--backend", "tone", "--pool-size", "2") as (process, port):
        wait_for(lambda: is_ready(port) and len(workers_of(process)) == 2)
        before = workers_of(process)
        if by == "command":
            url = f"http://127.0.0.1:{port}"
            done = run_cli(tmp_path, "backends", "restart", "tone", "--url", url)
            assert done.returncode == 0, done.stderr
            assert "tone: 2 workers replaced" in done.stdout
            wrong = run_cli(tmp_path, "backends", "restart", "tnoe", "--url", url)
            assert wrong.returncode == 1
            assert "did you mean 'tone'?" in wrong.stderr
        else:
            process.send_signal(signal.SIGHUP)
        assert client(port, "--text", "Hello.").returncode == 0
        wait_for(lambda: len(workers_of(process)) == 2 and not workers_of(process) & before)
        assert client(port, "--text", "Hello.").returncode == 0


def test_a_port_that_is_taken_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = failed_start(tmp_path, "--port", str(port))
    assert said.count("\n") == 1
    assert f"--port {port} › something listens there already" in said


def test_the_network_is_refused_without_a_key_and_demands_it_with_one(tmp_path: Path) -> None:
    said = failed_start(tmp_path, "--host", "0.0.0.0")
    assert said.count("\n") == 1
    assert "set VOICE_SERVER_API_KEY" in said
    key = "a-key-of-this-test"
    with running_server(tmp_path, "--host", "0.0.0.0", VOICE_SERVER_API_KEY=key) as (_, port):
        assert get(port, "/voices")[0] == 401
        assert get(port, "/voices", key)[0] == 200
        refused = client(port, "--text", "Hello.", "--api-key", "wrong")
        assert refused.returncode == 2
        assert "pass --api-key" in refused.stderr
        assert client(port, "--text", "Hello.", "--api-key", key).returncode == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host", "no.such.host.invalid"], "VOICE_SERVER_API_KEY"),
        (["--port", "70000"], "expected an integer from 0 to 65535"),
        (["--backend", "tnoe"], "did you mean 'tone'?"),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path: Path, flags: list[str], told: str) -> None:
    assert told in failed_start(tmp_path, *flags)


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    flags = ["--host", "192.0.2.1", "--port", "0"]
    assert "--host 192.0.2.1 › cannot listen there" in failed_start(
        tmp_path, *flags, VOICE_SERVER_API_KEY="k"
    )


def test_an_engine_that_is_not_installed_is_told_before_anything_listens(tmp_path: Path) -> None:
    (tmp_path / "backends.yaml").write_text("default: tone\nbackends: {tone: {venv: nowhere}}\n")
    done = subprocess.run(
        [sys.executable, "server.py", "--port", "0"], capture_output=True, text=True,
        timeout=SECONDS, cwd=ROOT, env=environment(tmp_path), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    assert "run `cli.py backends install tone`" in done.stderr


def test_neither_keys_nor_texts_of_an_address_are_logged(tmp_path: Path) -> None:
    key = "a-key-nobody-may-read"
    with running_server(
        tmp_path, VOICE_SERVER_API_KEY=key, VOICE_SERVER_LOG_LEVEL="DEBUG"
    ) as (_, port):  # fmt: skip
        wait_for(lambda: is_ready(port))
        with connect(
            f"ws://127.0.0.1:{port}/stream?text=confidential&api_key={key}", open_timeout=SECONDS
        ) as socket:
            while isinstance(socket.recv(SECONDS), str):
                pass
        get(port, f"/voices?api_key={key}")
    log = (tmp_path / "server.log").read_text()
    assert "/stream" in log
    assert key not in log


def test_the_log_is_json_when_asked(tmp_path: Path) -> None:
    with running_server(
        tmp_path, VOICE_SERVER_LOG_FORMAT="json", VOICE_SERVER_TYPO="1"
    ) as (_, port):  # fmt: skip
        wait_for(lambda: is_ready(port))
    lines = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    assert any("VOICE_SERVER_TYPO › unknown setting" in line["message"] for line in lines)
    assert any(line["logger"] == "voice_server.workers.worker" for line in lines)


def test_the_demo_writes_what_a_real_server_says(tmp_path: Path) -> None:
    path = tmp_path / "demo.wav"
    with running_server(tmp_path):  # one that is there already is no obstacle
        done = run_cli(tmp_path, "demo", "--output", str(path), "--no-play", "--text", "One. Two.")
    assert done.returncode == 0, done.stderr
    assert "first sound" in done.stdout
    with wave.open(str(path)) as file:
        assert any(file.readframes(file.getnframes()))


def test_the_demo_refuses_a_file_in_no_known_format_before_it_starts_a_server(
    tmp_path: Path,
) -> None:
    done = run_cli(tmp_path, "demo", "--output", str(tmp_path / "demo.m4a"), "--no-play")
    assert done.returncode == 2
    assert "expected a name that ends in .wav, .mp3, .opus, .ogg, .flac" in done.stderr
    assert done.stdout == ""


def test_the_client_writes_the_format_that_its_files_name_says(tmp_path: Path) -> None:
    text = ("--text", "One two three four five. Six seven eight.", "--token-delay", "0")
    with running_server(tmp_path) as (_, port):
        wait_for(lambda: is_ready(port))
        codecs, seconds = {}, []
        for ending in ("wav", "mp3", "opus", "ogg", "flac"):
            path = tmp_path / f"out.{ending}"
            done = client(port, "--output", str(path), *text)
            assert done.returncode == 0, done.stderr
            recording = decode(path, Limits(min_seconds=0.2))
            codecs[ending] = recording.codec.removesuffix("float")
            seconds.append(recording.duration)
    assert codecs == {"wav": "pcm", "mp3": "mp3", "opus": "opus", "ogg": "opus", "flac": "flac"}
    assert max(seconds) - min(seconds) < 0.2


def test_text_without_an_end_is_spoken_at_once_where_no_delay_is_wanted(tmp_path: Path) -> None:
    # On the event loop that operators run: its timers that are due at once are of another kind.
    with running_server(tmp_path) as (_, port):
        wait_for(lambda: is_ready(port))
        with connect(
            f"ws://127.0.0.1:{port}/stream-tokens", compression=None, open_timeout=SECONDS
        ) as socket:
            for message in ({"max_delay_ms": 0}, {"token": "no end "}, {"token": "of it "}):
                socket.send(json.dumps(message))
            while not isinstance(socket.recv(SECONDS), bytes):
                pass
            socket.send('{"done": true}')
            last = [message for message in socket if isinstance(message, str)][-1]
            assert json.loads(last)["stats"]["characters"] == len("no end of it ")


def test_wyoming_is_spoken_where_it_is_wanted_and_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = failed_start(tmp_path, "--wyoming", f"127.0.0.1:{port}")
        assert f"--wyoming 127.0.0.1:{port} › something listens there already" in said
    for wrong in ("localhost", "127.0.0.1:x", "::1:10200", "127.0.0.1:99999"):
        assert "expected HOST:PORT" in failed_start(tmp_path, "--wyoming", wrong)
    with running_server(tmp_path, "--wyoming", "0") as (process, _):
        connections = psutil.Process(process.pid).net_connections(kind="tcp")
        listening = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
        assert len(listening) == 2
        assert {address.ip for address in listening} == {"127.0.0.1"}
