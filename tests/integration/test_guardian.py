"""What is left when the server is killed: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from voice_server.workers.guardian import Guardian

ROOT = Path(__file__).resolve().parents[2]

# A server of one pool whose workers have started a program each, one of them holding the GIL.
SERVER = """
import asyncio, logging, sys
from tests.listening import pids, pool_of, say
logging.basicConfig(level=logging.INFO, stream=sys.stdout)

async def main():
    async with pool_of("chaos", 2) as pool:
        for listener in [say(pool, "grandchild slow") for _ in range(2)]:
            await listener.end()
        say(pool, "spin")
        await asyncio.sleep(0.2)
        print("workers", *pids(pool), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(is_met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not is_met():
        assert time.monotonic() < end
        time.sleep(0.01)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


def test_a_killed_server_leaves_no_worker_and_nothing_that_workers_started() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert server.stdout is not None
    try:
        started: list[int] = []
        for line in server.stdout:
            if "] grandchild " in line:
                started.append(int(line.split()[-1]))
            if line.startswith("workers "):
                workers = [int(pid) for pid in line.split()[1:]]
                break
        assert len(started) == 2
        assert all(is_there(pid) for pid in (*started, *workers))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    until(lambda: not any(is_there(pid) for pid in (*started, *workers)))


def test_only_groups_that_are_still_watched_are_killed() -> None:
    watched, forgotten = sleeper(), sleeper()
    try:
        guardian = Guardian()
        for process in (watched, forgotten):
            guardian.watch(process.pid)
        guardian.forget(forgotten.pid)
        guardian.close()
        assert watched.wait(60.0) == -signal.SIGKILL
        assert forgotten.poll() is None
    finally:
        for process in (watched, forgotten):
            process.kill()
            process.wait()


def shells() -> list[int]:
    return [child.pid for child in psutil.Process().children() if child.name() == "sh"]


def test_a_guardian_that_was_killed_is_replaced_with_all_it_knew() -> None:
    first, second = sleeper(), sleeper()
    try:
        # Servers of other tests may have guardians of their own in this process.
        others = set(shells())
        guardian = Guardian()
        guardian.watch(first.pid)
        (shell,) = set(shells()) - others
        os.kill(shell, signal.SIGKILL)
        until(lambda: not is_there(shell))
        guardian.watch(second.pid)
        guardian.close()
        assert first.wait(60.0) == -signal.SIGKILL
        assert second.wait(60.0) == -signal.SIGKILL
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_a_guardian_that_watched_nothing_closes_quietly() -> None:
    Guardian().close()
