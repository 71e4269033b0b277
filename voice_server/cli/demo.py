"""``cli.py demo``: tokens become speech, through a real server process and the client."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from voice_server.cli.console import errors_told, note
from voice_server.cli.playback import encoding_of
from voice_server.core.errors import VoiceServerError
from voice_worker.lifeline import PR_SET_PDEATHSIG

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = (
    "Hello! You hear the first words of this answer while the last ones are still being written. "
    "Tokens go in, one after another; a sentence is spoken as soon as it is sure to be one. "
    "Nothing here left your machine."
)
STOP_TIMEOUT = 40.0


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .wav, .mp3, .opus or .flac.")
    ] = Path("demo.wav"),
    text: Annotated[str, typer.Option(help="What the model says.", show_default=False)] = TEXT,
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play it.")] = None,
) -> None:
    """Start a server, stream a text to it as a language model would, and write what is heard."""
    with errors_told():
        encoding_of(output)  # what its client would refuse is told before a server starts
        # A folder of its own: the other may belong to a server that runs already.
        with TemporaryDirectory() as data, running_server(Path(data)) as url:
            command = [sys.executable, "client.py", "--url", f"{url}/stream-tokens", "--text", text]
            command += ["--output", str(output.absolute())]
            if play is not None:
                command.append("--play" if play else "--no-play")
            status = subprocess.run(command, cwd=CHECKOUT, check=False).returncode
        raise typer.Exit(status)


@contextmanager
def running_server(data: Path) -> Iterator[str]:
    """A server process of this checkout on a free port, which writes to ``data``; its address.

    Raises VoiceServerError when it does not start; what it said went to stderr.
    """
    command = [sys.executable, "server.py", "--port", "0"]
    env = {"VOICE_SERVER_LOG_LEVEL": "WARNING", **os.environ, "VOICE_SERVER_DATA_DIR": str(data)}
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=_end_with_us
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address = re.search(r"http(://\S+)", line)
            if address is None:
                raise VoiceServerError("the server did not start")
            note(line.strip())
            yield f"ws{address[1]}"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()


def _end_with_us() -> None:
    """In the server's process before it begins: it stops when this one ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
