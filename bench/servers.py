"""Starts what the benchmarks measure, each as a process of its own, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import IO

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def _process(
    command: Sequence[str], pattern: str, **env: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(pattern, line):
                # A log that nobody reads fills its pipe, and then the server waits for us.
                threading.Thread(target=_read_out, args=(process.stdout,), daemon=True).start()
                yield process, int(found[1])
                return
        raise SystemExit(f"{' '.join(command)} did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def _read_out(log: IO[str]) -> None:
    with contextlib.suppress(ValueError):  # it was closed with its process
        for _ in log:
            pass


@contextlib.contextmanager
def voice_server(*flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The real server, ready to speak: (process, port)."""
    command = [sys.executable, "server.py", "--port", "0", *flags]
    with _process(command, r"http://127\.0\.0\.1:(\d+)", **env) as (process, port):
        wait_ready(port)
        yield process, port


@contextlib.contextmanager
def relay(**env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A relay: (process, port)."""
    command = [sys.executable, "server.py", "relay", "--port", "0"]
    with _process(command, r"http://127\.0\.0\.1:(\d+)", **env) as started:
        yield started


@contextlib.contextmanager
def baseline() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The bare uvicorn WebSocket: (process, port)."""
    with _process([sys.executable, "-m", "bench.baseline"], r"PORT (\d+)") as started:
        yield started


def wait_ready(port: int, timeout: float = 60.0) -> None:
    """Wait until ``/ready`` answers 200."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median and p99 of seconds, in milliseconds."""
    p99 = quantiles(values, n=100)[98] if len(values) > 1 else values[0]
    return {"median_ms": round(median(values) * 1e3, 3), "p99_ms": round(p99 * 1e3, 3)}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) if found else 0


def report(name: str, rows: list[dict[str, object]]) -> None:
    """A table for people and one line of JSON for programs."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = [keys, *([str(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(keys))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"bench": name, "machine": machine, "rows": rows}))
