"""One server owns a data folder, and the kernel says when it is gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.cli_process import ROOT, environment, run_cli, running_server
from voice_server.core.errors import ConfigError
from voice_server.storage.ownership import LOCK, owned

HOLDER = """
import sys, time
from pathlib import Path
from voice_server.storage.ownership import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_folder_has_one_owner_and_is_free_again_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    for _ in range(2):
        with owned(folder):
            with pytest.raises(ConfigError, match=rf"pid {os.getpid()}\) works on .*data: stop it"):
                with owned(folder):
                    pytest.fail("two owners")
    with owned(tmp_path):
        pass


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with pytest.raises(ConfigError, match=rf"pid {holder.pid}\)"):
            with owned(tmp_path):
                pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
        with owned(tmp_path):
            assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.wait(60)
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_folder_that_cannot_be_written_is_said_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"VOICE_SERVER_DATA_DIR .*can be written"):
        with owned(tmp_path / "file" / "data"):
            pass


def test_a_second_server_on_the_folder_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    with running_server(tmp_path, "--backend", "tone") as (first, _):
        second = subprocess.run(
            [sys.executable, "server.py", "--port", "0", "--backend", "tone"],
            capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment(tmp_path),
        )  # fmt: skip
        assert second.returncode != 0
        assert "listens on" not in second.stdout
        assert re.search(rf"another server \(pid {first.pid}\) works on", second.stderr)
        assert "Traceback" not in second.stderr
        assert "ready after" not in second.stderr  # no model was loaded beside those of the first
        assert first.poll() is None
        # The command line is no second server.
        done = run_cli(tmp_path, "voices", "list")
        assert done.returncode == 0, done.stderr
    with running_server(tmp_path, "--backend", "tone"):
        pass
