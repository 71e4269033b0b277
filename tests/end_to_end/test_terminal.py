"""What becomes of a server whose terminal is closed, or whose parent dies."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.cli_process import ROOT, SECONDS, environment, running_server, wait_for

pytestmark = pytest.mark.timeout(400)

# Takes a terminal for its own, as a shell does that somebody opens a window for.
IN_TERMINAL = (
    "import os, sys; os.setsid(); os.dup2(os.open(sys.argv[1], os.O_RDWR), 0);"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


@contextmanager
def in_terminal(folder: Path, *prefix: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a terminal, and the descriptor whose closing closes that."""
    ours, theirs = pty.openpty()
    command = (sys.executable, "-c", IN_TERMINAL, os.ttyname(theirs), *prefix)
    with running_server(folder, "--backend", "tone", prefix=command) as (process, _):
        os.close(theirs)
        yield process, ours


def log(folder: Path) -> str:
    return (folder / "server.log").read_text()


def test_a_server_leaves_when_its_terminal_is_closed(tmp_path: Path) -> None:
    with in_terminal(tmp_path) as (process, terminal):
        process.send_signal(signal.SIGHUP)  # whose terminal is open: new workers, no more
        wait_for(lambda: "all workers are new" in log(tmp_path))
        os.close(terminal)
        assert process.wait(SECONDS) == 0
    assert "the terminal was closed: finishing what is under way" in log(tmp_path)
    assert "Traceback" not in log(tmp_path)


def test_a_server_under_nohup_stays_when_its_terminal_is_closed(tmp_path: Path) -> None:
    with in_terminal(tmp_path, "nohup") as (process, terminal):
        os.close(terminal)
        wait_for(lambda: "all workers are new" in log(tmp_path))
        assert process.poll() is None


def test_the_server_of_the_demonstration_ends_with_it_however_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "cli.py", "demo", "--no-play", "--text", "One two three. " * 5_000]
    with subprocess.Popen(
        [*command, "--output", str(tmp_path / "demo.wav")], cwd=ROOT, env=environment(tmp_path),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        while "generating" not in (line := demo.stdout.readline()):
            assert line, "it ended too soon"
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        demo.kill()
        _, alive = psutil.wait_procs(children, timeout=SECONDS)
        assert not alive
