"""Temporary files of workers: each has a folder of its own, which goes with it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.listening import pids, pool_of, run, say, spec, until
from voice_server.core.errors import WorkerStartError
from voice_server.workers.process import WorkerProcess, WorkerSpec
from voice_server.workers.scratch import Scratch, remove_abandoned

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import os, sys, time
from pathlib import Path
from voice_server.workers.scratch import Scratch
scratch = Scratch(sys.argv[1])
Path(scratch.path, "model").mkdir()
Path(scratch.path, "model", "weights").write_bytes(b"x" * 1000)
print(scratch.path, flush=True)
time.sleep(600)
"""
WORKER = """
import os, tempfile
from pathlib import Path
kept = Path(tempfile.mkdtemp(), "deep")
kept.mkdir()
(kept / "library.so").write_bytes(b"x" * 1000)
(kept / "link").symlink_to("/")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process has its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def leaving_files(folder: Path) -> WorkerSpec:
    """``chaos``, which obeys the words of its text, and leaves files when it is loaded."""
    entry = folder / "backend.py"
    chaos = spec("chaos").entry
    entry.write_text(
        f"{WORKER}\nimport runpy, sys\nsys.path.insert(0, {str(chaos.parent)!r})\n"
        f"runpy.run_path({str(chaos)!r}, run_name='__main__')\n"
    )
    return spec("chaos", entry=entry)


def test_a_worker_has_a_folder_of_its_own_that_nobody_else_may_read(
    tmp_path: Path, place: Path
) -> None:
    async def go() -> None:
        async with pool_of(leaving_files(tmp_path), size=2):
            folders = list(place.iterdir())
            assert len(folders) == 2
            for folder in folders:
                assert folder.stat().st_mode & 0o777 == 0o700
                assert len(list(folder.glob("*/deep/library.so"))) == 1
                # The path of a socket in there has 107 bytes at most.
                assert len(folder.name) <= 32

    run(go())
    assert not list(place.iterdir())


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_what_a_worker_leaves_is_gone_soon_after_it_ended(
    end: str, tmp_path: Path, place: Path
) -> None:
    async def go() -> None:
        async with pool_of(leaving_files(tmp_path)) as pool:
            (before,) = place.iterdir()
            if end == "kill":
                os.kill(pids(pool)[0], signal.SIGKILL)
            else:
                await say(pool, "one exit").failure()
            await until(lambda: not before.exists())

    run(go())
    assert not list(place.iterdir())
    assert Path("/bin").exists()  # links are removed, not followed


def test_a_worker_that_cannot_be_spawned_leaves_no_folder(tmp_path: Path, place: Path) -> None:
    async def go() -> None:
        absent = WorkerSpec("tone", tmp_path / "python", tmp_path / "backend.py")
        with pytest.raises(WorkerStartError):
            WorkerProcess(absent, ignore, ignore, ignore)

    run(go())
    assert not list(place.iterdir())


def test_the_folder_lies_where_the_backends_own_environment_says(
    tmp_path: Path, place: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()

    async def go() -> None:
        async with pool_of("tone", env={"TMPDIR": str(large)}):
            assert len(list(large.iterdir())) == 1
            assert not list(place.iterdir())

    run(go())
    assert not list(large.iterdir())


def test_where_no_folder_can_be_made_workers_start_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with pool_of("tone", env={"TMPDIR": str(tmp_path / "absent")}) as pool:
            assert await say(pool, "one").end()

    run(go())
    assert "no folder of its own" in caplog.text


def test_caches_stay_outside_what_goes_with_a_worker(place: Path) -> None:
    scratch = Scratch()
    found = scratch.environment({"PATH": "/bin", "TMPDIR": "/elsewhere"})
    assert found["TMPDIR"] == scratch.path
    assert Path(found["TORCHINDUCTOR_CACHE_DIR"]).parent == place
    assert scratch.environment({"TORCHINDUCTOR_CACHE_DIR": "/c"})["TORCHINDUCTOR_CACHE_DIR"] == "/c"
    scratch.remove()


def test_a_start_removes_what_a_killed_server_left_and_nothing_of_a_living_one(
    place: Path,
) -> None:
    living, killed = (start_server(place) for _ in range(2))
    try:
        end(killed)
        others = [place / "voice-worker-notes", place / "voice-worker-1-abc", place / "tmp0123abcd"]
        for other in others:
            other.mkdir()
        (place / "voice-worker-1-abcdefgh").write_text("no folder")
        (place / "voice-worker-2-abcdefgh").symlink_to(others[0])

        async def go() -> None:
            async with pool_of("tone"):
                await until(lambda: not any(is_of(killed, path) for path in place.iterdir()))

        run(go())
        (left,) = (path for path in place.iterdir() if is_of(living, path))
        assert (left / "model" / "weights").exists()
        assert all(other.exists() for other in others)
        assert len(list(place.iterdir())) == len(others) + 3
    finally:
        end(living)
    remove_abandoned()
    assert not any(is_of(living, path) for path in place.iterdir())


def test_two_that_start_at_once_do_not_take_each_others_folders(place: Path) -> None:
    async def go() -> None:
        stop = False

        def sweep() -> None:
            while not stop:
                remove_abandoned()

        sweeping = asyncio.create_task(asyncio.to_thread(sweep))
        try:
            made = await asyncio.to_thread(lambda: [Scratch() for _ in range(200)])
        finally:
            stop = True
            await sweeping
        assert all(scratch.path is not None and Path(scratch.path).is_dir() for scratch in made)
        for scratch in made:
            scratch.remove()

    run(go())
    assert not list(place.iterdir())


def ignore(*_: object) -> None:
    """A callback of no interest."""


def start_server(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, place], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(str(place))
    return process


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def is_of(process: subprocess.Popen[str], path: Path) -> bool:
    return path.name.startswith(f"voice-worker-{process.pid}-")
