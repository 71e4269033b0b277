"""A real server to break, its processes, and clients that do not wait for anybody."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.servers import ROOT, wait_ready

YAML = f"""
default: tone
backends:
  tone: {{python: {sys.executable}, workers: 2, options: {{seconds_per_word: 0.2}}}}
  quick: {{path: {ROOT}/backends/tone, python: {sys.executable}, options: {{seconds_per_word: 0.001}}}}
  babble:
    python: {sys.executable}
    options: {{slots: 8, step_ms: 2, chars_per_second: 20, frame_ms: 80}}
  espeak: {{python: {sys.executable}, workers: 2, voice: en-us}}
"""


@contextlib.contextmanager
def server(*backends: str, **limits: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process that is ready: (process, port). It is killed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "backends.yaml").write_text(YAML)
        Path(folder, "voice_samples").mkdir()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("VOICE_SERVER_")}
        environ |= {
            "VOICE_SERVER_BACKENDS_FILE": f"{folder}/backends.yaml",
            "VOICE_SERVER_DATA_DIR": f"{folder}/data",
            "VOICE_SERVER_VOICE_SAMPLES_DIR": f"{folder}/voice_samples",
            "VOICE_SERVER_LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
        }
        environ |= {f"VOICE_SERVER_LIMITS_{k.upper()}": str(v) for k, v in limits.items()}
        flags = [flag for name in backends for flag in ("--backend", name)]
        process = subprocess.Popen(
            [sys.executable, "server.py", "--port", "0", *flags],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            for said in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", said):
                    port = int(found[1])
                    wait_ready(port)
                    yield process, port
                    return
            raise RuntimeError("the server did not start")
        finally:
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    """Processes that this one started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


def marked(mark: str) -> list[int]:
    """Live processes whose environment holds ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                    if state != "Z":
                        found.append(int(entry.name))
    return found
