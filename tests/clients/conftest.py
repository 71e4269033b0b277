"""The server that `tests/clients/run` started, for clients of whatever vendor."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# `make test` knows none of these clients.
collect_ignore_glob = [] if "CLIENTS_URL" in os.environ else ["*"]

PAGES = Path(os.environ.get("CLIENTS_PAGES", ""))
PATIENCE = 60.0


@pytest.fixture(scope="session")
def url() -> str:
    """The server's address, without a slash behind it."""
    return os.environ["CLIENTS_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    return os.environ["CLIENTS_KEY"]


@pytest.fixture(scope="session")
def length(url: str, key: str) -> Callable[[str], float]:
    """The seconds of a text, spoken by the server's own door."""

    def measured(text: str, voice: str = "en-us") -> float:
        body = f'{{"text": "{text}", "voice": "{voice}", "format": "pcm"}}'.encode()
        asked = urllib.request.Request(f"{url}/tts", body, {"X-API-Key": key})
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return len(answer.read()) / 2 / 24_000

    return measured


@pytest.fixture(scope="session")
def turns(url: str, key: str) -> Callable[..., float]:
    """How many turns ended: ``turns(door="openai", outcome="dropped")``."""

    def counted(**labels: str) -> float:
        asked = urllib.request.Request(f"{url}/metrics", headers={"X-API-Key": key})
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        mine = [line for line in lines if line.startswith("voice_server_turns_total{")]
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(float(line.split()[-1]) for line in mine if all(w in line for w in wanted))

    return counted


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as it holds; fail when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def shown(url: str, key: str) -> Callable[..., dict[str, Any]]:
    """Runs a program that a page shows: ``shown("openai.md", 0)`` is what it leaves behind."""

    def run(page: str, number: int, **changes: str) -> dict[str, Any]:
        text = (PAGES / page).read_text(encoding="utf-8")
        program = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)[number]
        program = program.replace("http://localhost:8000", url).replace("YOUR_KEY", key)
        program = program.replace("ws://localhost:8000", url.replace("http", "ws", 1))
        for old, new in changes.items():
            program = program.replace(old, new)
        left: dict[str, Any] = {}
        exec(compile(program, page, "exec"), left)
        return left

    return run
