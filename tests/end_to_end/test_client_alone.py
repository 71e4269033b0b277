"""client.py as a process, against a scripted server: what it sends, shows, writes and returns."""

from __future__ import annotations

import ast
import asyncio
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "client.py"
ENDINGS = ".wav, .mp3, .opus, .ogg, .flac"
Handler = Callable[[ServerConnection, list[dict[str, Any]]], Awaitable[None]]

TONE = struct.pack("<2400h", *(int(9000 * math.sin(i / 9)) for i in range(2400)))  # 100 ms


class Scripted:
    """A server in a thread; ``received`` holds what clients sent, ``headers`` their last request."""

    def __init__(self, handler: Handler, status: int | None = None) -> None:
        self.received: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self._handler = handler
        self._status = status

    @contextmanager
    def running(self) -> Iterator[str]:
        started: list[Any] = []
        is_up = threading.Event()

        async def main() -> None:
            stop = asyncio.Event()
            async with serve(self._serve, "127.0.0.1", 0, process_request=self._check) as server:
                started.extend([asyncio.get_running_loop(), stop, server])
                is_up.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert is_up.wait(60)
        loop, stop, server = started
        assert isinstance(server, Server)
        try:
            port = next(iter(server.sockets)).getsockname()[1]
            yield f"ws://127.0.0.1:{port}/stream-tokens"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(60)

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers = dict(request.headers.raw_items())
        if self._status is None:
            return None
        return connection.respond(self._status, "no workers are ready\n")  # type: ignore[arg-type]

    async def _serve(self, socket: ServerConnection) -> None:
        await self._handler(socket, self.received)


async def read_turn(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
    async for message in socket:
        received.append(json.loads(message))
        if received[-1].get("done") or received[-1].get("cancel"):
            return


async def speak_seed(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
    """Exactly what the first protocol had: no done message, the server closes."""
    await read_turn(socket, received)
    said = "".join(message.get("token", "") for message in received)
    await socket.send(json.dumps({"type": "generating", "sentence": said, "queue_depth": 0}))
    for _ in range(3):
        await socket.send(TONE)


def run_client(
    *flags: str, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder of its own, so that nothing of ours could be imported."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [sys.executable, str(CLIENT), "--no-play", *flags],
        capture_output=True, text=True, timeout=60, cwd="/", env={**os.environ, **env}, **given,
    )  # fmt: skip


def test_it_imports_nothing_of_ours_and_nothing_but_websockets() -> None:
    tree = ast.parse(CLIENT.read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"websockets", "miniaudio"}


def test_a_text_goes_out_as_tokens_and_the_sound_comes_back_as_a_file(tmp_path: Path) -> None:
    server = Scripted(speak_seed)
    with server.running() as url:
        flags = ["--voice", "af_heart", "--opt", "speed=1.2", "--opt", "style=warm"]
        path = tmp_path / "out.wav"
        done = run_client("--url", url, "--text", "Hello there, world.", "--token-delay", "0.001",
                          "--output", str(path), *flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    config, *tokens, end = server.received
    assert config == {"voice": "af_heart", "opts": {"speed": 1.2, "style": "warm"}}
    assert end == {"done": True}
    assert len(tokens) > 2
    assert "".join(token["token"] for token in tokens) == "Hello there, world."
    assert "generating  'Hello there, world.'" in done.stdout
    assert "first sound" in done.stdout
    assert "0.30 s in 3 frames" in done.stdout
    assert "underruns    " in done.stdout
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert file.readframes(10_000) == TONE * 3


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("a.mp3", "mp3"), ("a.OPUS", "opus"), ("a.b.ogg", "opus"), ("a.flac", "flac")],
)
def test_a_files_name_says_in_which_format_the_sound_is_asked_for(
    name: str, encoding: str, tmp_path: Path
) -> None:
    server = Scripted(speak_seed)
    with server.running() as url:
        path = tmp_path / name
        done = run_client("--url", url, "--text", "Hi.", "--output", str(path), "--play")
    assert done.returncode == 0, done.stderr
    assert server.received[0] == {"format": encoding}
    assert path.read_bytes() == TONE * 3  # as it came, whatever it is
    assert f"{encoding} in 3 frames" in done.stdout
    assert "underruns" not in done.stdout  # nobody has decoded it
    assert f"not played: {encoding} is for the file alone" in done.stderr


@pytest.mark.parametrize("name", ["a.txt", "a", "mp3", ".wav", "a.mp3.part"])
def test_a_file_in_no_known_format_is_refused_before_anything_is_said(
    name: str, tmp_path: Path
) -> None:
    server = Scripted(speak_seed)
    path = tmp_path / name
    with server.running() as url:
        done = run_client("--url", url, "--text", "Hi.", "--output", str(path))
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: expected a name that ends in {ENDINGS}\n"
    assert not server.headers
    assert not path.exists()


def test_standard_input_is_streamed_as_it_arrives() -> None:
    first_token_before_second = threading.Event()

    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        received.append(json.loads(await socket.recv()))
        first_token_before_second.set()
        await speak_seed(socket, received)

    server = Scripted(handler)
    with server.running() as url:
        command = [sys.executable, str(CLIENT), "--no-play", "--url", url]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write("Caf\u00e9 ".encode())
            process.stdin.flush()
            assert first_token_before_second.wait(60)
            process.stdin.write(b"au lait.")
            process.stdin.close()
            assert process.wait(60) == 0
    assert "".join(message.get("token", "") for message in server.received) == "Café au lait."


def test_without_text_and_without_a_pipe_it_says_a_sample() -> None:
    server = Scripted(speak_seed)
    with server.running() as url:
        assert run_client("--url", url, "--token-delay", "0").returncode == 0
    assert sum("token" in message for message in server.received) > 10


def test_an_empty_pipe_says_a_sample_and_says_that_it_does() -> None:
    server = Scripted(speak_seed)
    with server.running() as url:
        done = run_client("--url", url, stdin="")
    assert done.returncode == 0
    assert "standard input is empty" in done.stderr
    assert any("token" in message for message in server.received)


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    full, missing = tmp_path / "full.wav", tmp_path / "missing" / "x.wav"
    full.symlink_to("/dev/full")
    full_mp3 = tmp_path / "full.mp3"
    full_mp3.symlink_to("/dev/full")
    no_space = "No space left on device"
    reasons = {full: no_space, full_mp3: no_space, missing: "No such file or directory"}
    for path, reason in reasons.items():
        server = Scripted(speak_seed)
        with server.running() as url:
            done = run_client("--url", url, "--text", "Hi.", "--output", str(path))
        assert done.returncode != 0
        assert str(path) in done.stderr
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_reader_who_leaves_ends_it_without_a_traceback() -> None:
    server = Scripted(speak_seed)
    reading, writing = os.pipe()
    os.close(reading)
    with server.running() as url:
        done = subprocess.run(
            [sys.executable, str(CLIENT), "--no-play", "--url", url, "--text", "Hi."],
            stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_letters_that_the_terminal_has_not_are_replaced() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        spoken = {"type": "generating", "sentence": "Größe.", "queue_depth": 0}
        await socket.send(json.dumps(spoken))
        await socket.send(json.dumps({"type": "done"}))

    with Scripted(handler).running() as url:
        done = run_client("--url", url, "--text", "Größe.", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Gr??e." in done.stdout


def test_additions_are_asked_for_and_shown() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        words = [{"text": "Hi.", "start_ms": 0, "end_ms": 90}]
        stats = {"ttfa_ms": 1.5, "underruns": 0}
        for message in (
            {"type": "ready", "session": "s", "backend": "tone", "voice": "220"},
            {"type": "words", "segment": 0, "words": words},
        ):
            await socket.send(json.dumps(message))
        await socket.send(TONE)
        await socket.send(json.dumps({"type": "done", "stats": stats}))
        await socket.wait_closed()

    server = Scripted(handler)
    with server.running() as url:
        done = run_client("--url", url, "--text", "Hi.", "--timestamps", "--backend", "tone")
    assert done.returncode == 0, done.stderr
    assert server.received[0] == {"backend": "tone", "timestamps": True}
    assert "tone · voice 220" in done.stdout
    assert "Hi.@0" in done.stdout
    assert "1.5 ms after the text that made it possible" in done.stdout


def test_a_pause_longer_than_the_sound_before_it_is_an_underrun() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        await socket.send(TONE)
        await asyncio.sleep(2.0)
        await socket.send(TONE)

    with Scripted(handler).running() as url:
        done = run_client("--url", url, "--text", "Hi.")
    assert "underruns    1," in done.stdout


def test_an_error_of_the_server_is_told_in_its_words_and_by_the_exit_status() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        error = {
            "type": "error",
            "msg": "no voice 'bob'; did you mean 'rob'?",
            "code": "unknown_voice",
        }
        await socket.send(json.dumps(error))
        await socket.close(1008, "unknown_voice")

    with Scripted(handler).running() as url:
        done = run_client("--url", url, "--text", "Hi.")
    assert done.returncode == 1
    assert done.stderr == "error: no voice 'bob'; did you mean 'rob'? (unknown_voice)\n"


def test_a_connection_that_breaks_is_an_error() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        await socket.send(TONE)
        socket.transport.abort()

    with Scripted(handler).running() as url:
        done = run_client("--url", url, "--text", "Hi.")
    assert done.returncode == 1
    assert "the connection broke" in done.stderr


def test_a_server_that_goes_away_before_the_end_is_an_error() -> None:
    async def handler(socket: ServerConnection, received: list[dict[str, Any]]) -> None:
        await read_turn(socket, received)
        await socket.close(1001, "going away")

    with Scripted(handler).running() as url:
        done = run_client("--url", url, "--text", "Hi.")
    assert done.returncode == 1
    assert "1001" in done.stderr


def test_nobody_at_the_address_is_one_line_with_the_remedy() -> None:
    done = run_client("--url", "ws://127.0.0.1:9/stream-tokens")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Start the server with: uv run server.py" in done.stderr


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "pass --api-key or set VOICE_SERVER_API_KEY"), (503, "no workers are ready")],
)
def test_a_refused_handshake_is_told(status: int, told: str) -> None:
    with Scripted(speak_seed, status).running() as url:
        done = run_client("--url", url, "--text", "Hi.")
    assert done.returncode == 2
    assert told in done.stderr


def test_the_key_goes_into_the_header_never_into_the_address() -> None:
    server = Scripted(speak_seed)
    with server.running() as url:
        run_client("--url", url, "--text", "Hi.", VOICE_SERVER_API_KEY="from-env")
        assert server.headers["Authorization"] == "Bearer from-env"
        run_client("--url", url, "--text", "Hi.", "--api-key", "from-flag")
    assert server.headers["Authorization"] == "Bearer from-flag"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--opt", "speed"], "expected name=value, such as speed=1.2"),
        (["--url", "localhost"], "expected something like ws://"),
        (["--token-delay", "-1"], "invalid seconds value: '-1'"),
        (["--token-delay", "nan"], "invalid seconds value: 'nan'"),
    ],
)
def test_a_wrong_flag_is_told(flags: list[str], told: str) -> None:
    done = run_client(*flags)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with Scripted(speak_seed).running() as url:
        done = run_client("--url", url, "--output", str(tmp_path / "missing" / "out.wav"))
    assert done.returncode == 2
    assert "cannot write" in done.stderr


async def speak_until_cancelled(
    is_speaking: threading.Event, socket: ServerConnection, received: list[dict[str, Any]]
) -> None:
    await socket.recv()
    await socket.send(TONE * 50)
    is_speaking.set()
    await read_turn(socket, received)
    spoken = {"played_ms": 80, "text_spoken": "One two", "text_remaining": " three."}
    await socket.send(json.dumps({"type": "cancelled", **spoken}))
    await socket.wait_closed()


def test_ctrl_c_interrupts_as_a_listener_would_and_says_what_was_heard() -> None:
    is_speaking = threading.Event()
    server = Scripted(partial(speak_until_cancelled, is_speaking))
    with server.running() as url:
        command = [sys.executable, str(CLIENT), "--no-play", "--url", url, "--text"]
        with subprocess.Popen(
            [*command, "One two three. " * 400], stdout=subprocess.PIPE, text=True
        ) as process:
            assert is_speaking.wait(60)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "interrupted; heard: 'One two'" in out
    assert server.received[-1]["cancel"] is True
    assert 0 < server.received[-1]["played_ms"] <= 5000


def test_an_interruption_tells_no_time_of_what_was_not_decoded(tmp_path: Path) -> None:
    is_speaking = threading.Event()
    server = Scripted(partial(speak_until_cancelled, is_speaking))
    with server.running() as url:
        command = [sys.executable, str(CLIENT), "--url", url, "--output", str(tmp_path / "a.mp3")]
        with subprocess.Popen([*command, "--text", "One two. " * 400]) as process:
            assert is_speaking.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
    assert server.received[-1] == {"cancel": True}


def test_it_explains_every_flag() -> None:
    done = run_client("--help")
    assert done.returncode == 0
    for flag in ("--url", "--text", "--voice", "--backend", "--opt", "--output", "--play",
                 "--no-play", "--token-delay", "--timestamps", "--api-key"):  # fmt: skip
        assert flag in done.stdout
