"""The contract of every backend, over the small weights. The models are shrunk by the adapter in
../tiny, so it is not ``checkpoint.py`` that says how to run it, but the server's backends.yaml.
"""

from __future__ import annotations

import pytest

from tests.end_to_end import cli_process
from tests.end_to_end.cli_process import run_cli

cli_process.SECONDS = 1200.0
# On a busy machine; it takes a minute and a half of processor time.
pytestmark = pytest.mark.timeout(1300)


def test_it_keeps_the_contract(folder):
    plan = ["--segments", "80", "--cancels", "3", "--chars", "200"]
    recording = ["--recording", str(folder / "checkpoint" / "own.wav")]
    done = run_cli(folder, "backends", "check", "chatterbox", "--full", *plan, *recording)
    assert done.returncode == 0, done.stdout + done.stderr
