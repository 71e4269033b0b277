"""The files that are typed, under a Python that has none of their packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.end_to_end.cli_process import ROOT


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        ("cli.py", "run `uv run cli.py`, or use the Python of a venv that has requirements.txt"),
        ("server.py", "run `uv run server.py`, or"),
        ("client.py", "-m pip install 'websockets>=15'"),
    ],
)
def test_a_python_without_the_packages_is_told_in_one_line(script: str, remedy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", script, "--help"],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert remedy in done.stderr
