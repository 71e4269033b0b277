"""The command line and the server as processes, over engines that need no installing."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 150.0


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment with every setting of its own, all files in ``folder``."""
    listing = "".join(f"  {name}: {{python: {sys.executable}}}\n" for name in ("tone", "chaos"))
    (folder / "samples").mkdir(exist_ok=True)
    if not (folder / "backends.yaml").exists():
        (folder / "backends.yaml").write_text(f"default: tone\nbackends:\n{listing}")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VOICE_SERVER_")}
    return {
        **kept,
        "VOICE_SERVER_BACKENDS_FILE": str(folder / "backends.yaml"),
        "VOICE_SERVER_DATA_DIR": str(folder / "data"),
        "VOICE_SERVER_VOICE_SAMPLES_DIR": str(folder / "samples"),
        "XDG_STATE_HOME": str(folder / "state"),
        "COLUMNS": "120",
        **more,
    }


def run_cli(
    folder: Path, *flags: str, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """``python cli.py …`` to its end; without ``stdin`` it has none, as under a service."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [sys.executable, "cli.py", *flags],
        capture_output=True, text=True, timeout=SECONDS, cwd=ROOT,
        env=environment(folder, **env), **given,
    )  # fmt: skip


@contextmanager
def running_server(
    folder: Path,
    *flags: str,
    command: tuple[str, ...] = (),
    port: int = 0,
    prefix: tuple[str, ...] = (),
    **env: str,
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``python server.py COMMAND --port 0 …`` and its port. Killed at the end if it still runs.

    ``prefix``: what runs it elsewhere, such as ``ip netns exec``.
    """
    with open(folder / "server.log", "a") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, "server.py", *command, "--port", f"{port}", *flags],
            stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
            env=environment(folder, **env),
        )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], SECONDS)
            line = process.stdout.readline() if ready else ""
            found = re.search(r"listens on https?://\S+:(\d+) ", line)
            assert found, f"it said {line!r}; {(folder / 'server.log').read_text()[-2000:]}"
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
