"""A server moves to another machine: its voices, by examples/move_voices.py, between two servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import PATIENCE, Server, serving
from tests.end_to_end.cli_process import ROOT


def moved(old: Server | str, new: Server | str, **keys: str) -> subprocess.CompletedProcess[str]:
    urls = [f"http://127.0.0.1:{s.port}" if isinstance(s, Server) else s for s in (old, new)]
    return subprocess.run(
        [sys.executable, "examples/move_voices.py", *urls],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, env={**os.environ, **keys},
    )  # fmt: skip


def refusal(old: Server | str, new: Server | str, **keys: str) -> str:
    """What is said of a move that cannot begin: one line."""
    done = moved(old, new, **keys)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_every_voice_moves_whole_and_a_second_run_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with serving(tmp_path / "old") as old, serving(tmp_path / "new") as new:
        for name, pitch in (("Maya", 210.0), ("Nova", 150.0)):
            old.json(
                *("-X", "POST", old.url("/api/v1/tts/clone"), "-F", f"name={name}"),
                *("-F", f"file=@{old.recording(f'{name}.wav', pitch)}"),
                *("-F", f"ref_text=This is {name}."),
            )
        first = moved(old, new)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "2 voices moved" in first.stdout
        ids = [voice["voice_id"] for voice in new.json(new.url("/api/v1/tts/voices"))["voices"]]
        assert len(ids) == 2
        heard = sorted(new.heard_by_stream_tokens(voice) for voice in ids)
        assert heard == [pytest.approx(150, abs=12), pytest.approx(210, abs=12)]
        second = moved(old, new)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "0 voices moved" in second.stdout


def test_a_wrong_key_and_what_is_no_server_are_told_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, VOICE_SERVER_API_KEY="the right key") as server:
        for wrong in ({}, {"OLD_KEY": "a wrong key"}, {"OLD_KEY": "ключ"}):
            assert "OLD_KEY is not set to a key" in refusal(server, server, **wrong)
        broken = refusal(server, server, OLD_KEY="half a\nkey")
        assert "OLD_KEY is no key" in broken
        assert "half a" not in broken  # a terminal is no place for a secret
        assert "no list of voices" in refusal(
            f"http://127.0.0.1:{server.port}/voices/..", server, OLD_KEY="the right key"
        )
        for place in ("127.0.0.1:1", "ftp://127.0.0.1", "http://127.0.0.1:1", "http://[::1", ""):
            assert f"error: {place} cannot be asked" in refusal(place, server)
        server.json(
            *("-X", "POST", server.url("/api/v1/tts/clone"), "-H", "X-API-Key: the right key"),
            *("-F", "name=Maya", "-F", f"file=@{server.recording('maya.wav', 210.0)}"),
        )
        done = moved(server, server, OLD_KEY="the right key", NEW_KEY="a wrong key")
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "NEW_KEY is not set to a key" in line


def test_a_voice_that_is_refused_is_named_and_holds_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    trusting = {"VOICE_SERVER_PACKAGE_TRUSTED_KEYS": "ab" * 32}
    with serving(tmp_path / "old") as old, serving(tmp_path / "new", **trusting) as new:
        for name in ("Maya", "Nova"):
            old.json(
                *("-X", "POST", old.url("/api/v1/tts/clone"), "-F", f"name={name}"),
                *("-F", f"file=@{old.recording(f'{name}.wav', 210.0)}"),
            )
        done = moved(old, new)
        assert (done.returncode, done.stderr) == (1, "")
        *refused, told = done.stdout.splitlines()
        assert [line.split()[:2] for line in sorted(refused)] == [
            ["refused", "maya"],
            ["refused", "nova"],
        ]
        assert all("not signed" in line for line in refused)
        assert told == "0 voices moved, 2 were refused"
