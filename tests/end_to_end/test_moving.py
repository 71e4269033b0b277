"""A server moves to another machine: its voices, by examples/move_voices.py, between two servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.catalogue_server import PATIENCE, Server, serving
from tests.end_to_end.cli_process import ROOT


def moved(old: Server, new: Server) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/move_voices.py",
         f"http://127.0.0.1:{old.port}", f"http://127.0.0.1:{new.port}"],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE,
    )  # fmt: skip


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
