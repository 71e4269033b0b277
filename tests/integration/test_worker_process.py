"""One process and its pipes: what it is given, how it ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.listening import run, spec, until
from voice_server.core.errors import WorkerStartError
from voice_server.workers.process import MAX_UNSENT, Exit, WorkerProcess, WorkerSpec
from voice_worker import messages as m
from voice_worker.protocol import LocalProtocolError


class Watched:
    """A process and everything it said."""

    def __init__(self, of: WorkerSpec) -> None:
        self.messages: list[m.Message] = []
        self.faults: list[str] = []
        self.exits: list[Exit] = []
        self.process = WorkerProcess(of, self._messages, self.faults.append, self.exits.append)

    def _messages(self, messages: Sequence[m.Message]) -> None:
        assert not self.exits
        self.messages += messages

    async def receive(self, cls: type[m.Message]) -> m.Message:
        await until(lambda: any(type(message) is cls for message in self.messages))
        return next(message for message in self.messages if type(message) is cls)

    async def load(self) -> None:
        await self.receive(m.Hello)
        self.process.send(m.Load({}))
        await self.receive(m.Ready)

    async def end(self) -> Exit:
        await until(lambda: bool(self.exits))
        (exit,) = self.exits
        return exit


def script(folder: Path, text: str) -> WorkerSpec:
    """A program in the place of a backend."""
    entry = folder / "backend.py"
    entry.write_text(text)
    return spec("tone", entry=entry)


def test_a_worker_greets_loads_speaks_and_leaves() -> None:
    async def go() -> None:
        watched = Watched(spec("tone"))
        hello = await watched.receive(m.Hello)
        assert isinstance(hello, m.Hello)
        assert hello.pid == watched.process.pid
        await watched.load()
        watched.process.send(m.Synthesize(1, 1, "one two", {}))
        await watched.receive(m.Done)
        held = watched.process.resident_mb()
        assert held is None or 1.0 < held < 4000.0
        watched.process.send(m.Shutdown())
        assert await watched.end() == Exit(0)
        assert watched.faults == []

    run(go())


def test_the_cause_of_an_exit_is_known() -> None:
    async def go() -> None:
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
            watched = Watched(spec("tone"))
            await watched.load()
            os.kill(watched.process.pid, number)
            exit = await watched.end()
            assert exit.code == -number
            assert number.name in str(exit)
            assert exit.is_from_outside == (number is not signal.SIGSEGV)

    run(go())


def test_where_there_is_no_pidfd_the_exit_is_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> int:
        raise OSError("not on this system")

    async def go() -> None:
        watched = Watched(spec("tone"))
        await watched.load()
        watched.process.kill()
        assert await watched.end() == Exit(-9)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    run(go())


def test_what_it_said_before_it_died_is_heard() -> None:
    async def go() -> None:
        watched = Watched(spec("chaos"))
        await watched.load()
        watched.process.send(m.Synthesize(1, 1, "one two three exit", {}))
        assert await watched.end() == Exit(7)
        sound = [message for message in watched.messages if isinstance(message, m.Audio)]
        assert sum(len(message.pcm) for message in sound) == 3 * 480

    run(go())


def test_a_worker_that_does_not_read_is_reported() -> None:
    async def go() -> None:
        watched = Watched(spec("tone"))
        await watched.load()
        os.kill(watched.process.pid, signal.SIGSTOP)
        sent = 0
        while not watched.faults:
            sent += 1
            assert sent * 100_000 < 2 * MAX_UNSENT
            watched.process.send(m.Prepare(sent, {"design": "x" * 100_000}))
        assert "unread" in watched.faults[0]
        watched.process.kill()
        await watched.end()

    run(go())


def test_what_is_written_faster_than_it_reads_arrives_whole() -> None:
    async def go() -> None:
        watched = Watched(spec("tone"))
        await watched.load()
        for number in range(1, 21):
            watched.process.send(m.Prepare(number, {"design": "x" * 100_000}))
        await until(lambda: watched.messages[-1] == m.Prepared(20))
        assert watched.faults == []
        watched.process.kill()
        await watched.end()

    run(go())


def test_bytes_that_are_no_frames_are_reported(tmp_path: Path) -> None:
    program = """
import os, time
from voice_worker.stdio import taken_stdio
os.write(taken_stdio()[1], b"GET / HTTP/1.1")
time.sleep(60)
"""

    async def go() -> None:
        watched = Watched(script(tmp_path, program))
        await until(lambda: bool(watched.faults))
        assert "protocol" in watched.faults[0]
        watched.process.mute()
        watched.process.kill()
        assert await watched.end() == Exit(-9)

    run(go())


def test_a_worker_of_another_version_is_told_how_to_be_repaired(tmp_path: Path) -> None:
    program = """
import time
from voice_worker import messages
messages.PROTOCOL_VERSION = 99
from voice_worker.protocol import Connection, Role
import os
from voice_worker.stdio import taken_stdio
os.write(taken_stdio()[1], Connection(Role.WORKER).send(messages.Hello("tone", "3", 1, 99)))
time.sleep(60)
"""

    async def go() -> None:
        watched = Watched(script(tmp_path, program))
        await until(lambda: bool(watched.faults))
        assert "cli.py backends install" in watched.faults[0]
        watched.process.kill()
        await watched.end()

    run(go())


def test_a_worker_that_closes_its_pipe_and_stays_is_reported(tmp_path: Path) -> None:
    program = """
import os, time
from voice_worker.stdio import taken_stdio
os.close(taken_stdio()[1])
time.sleep(60)
"""

    async def go() -> None:
        watched = Watched(script(tmp_path, program))
        await until(lambda: bool(watched.faults))
        assert "lives on" in watched.faults[0]
        watched.process.kill()
        await watched.end()

    run(go())


def test_a_grandchild_that_holds_the_pipes_does_not_hide_the_exit(tmp_path: Path) -> None:
    program = """
import os, subprocess
from voice_worker.stdio import taken_stdio
out = taken_stdio()[1]
subprocess.Popen(["sleep", "60"], pass_fds=[out], stderr=out)
os._exit(5)
"""

    async def go() -> None:
        watched = Watched(script(tmp_path, program))
        assert await watched.end() == Exit(5)

    run(go())


def test_an_illegal_message_is_refused_and_what_came_before_it_is_sent() -> None:
    async def go() -> None:
        watched = Watched(spec("tone"))
        await watched.load()
        with pytest.raises(LocalProtocolError):
            watched.process.send(m.Synthesize(1, 1, "one", {}), m.Cancel(99))
        await watched.receive(m.Done)
        watched.process.kill()
        await watched.end()
        watched.process.send(m.Ping(1))
        watched.process.kill()

    run(go())


def test_a_python_that_cannot_run_raises_with_the_remedy(tmp_path: Path) -> None:
    async def go() -> None:
        with pytest.raises(WorkerStartError, match=r"cli\.py backends install tone"):
            Watched(WorkerSpec("tone", tmp_path / "python", tmp_path / "backend.py"))

    run(go())


def test_a_worker_sees_only_what_it_needs_of_the_environment() -> None:
    of = WorkerSpec("tone", Path(sys.executable), Path("b.py"), env={"MKL_NUM_THREADS": "3"})
    seen = of.environment(
        {
            "PATH": "/bin",
            "VOICE_SERVER_API_KEY": "secret",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "CUDA_VISIBLE_DEVICES": "1",
            "LC_ALL": "C",
            "OMP_NUM_THREADS": "2",
        }
    )
    assert seen == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "3",
    }


def test_a_nice_worker_is_nice() -> None:
    async def go() -> None:
        watched = Watched(spec("tone", nice=5))
        assert os.getpriority(os.PRIO_PROCESS, watched.process.pid) >= 5
        await watched.load()
        # Among other sessions too, where the kernel shares the processors out by session.
        autogroup = Path(f"/proc/{watched.process.pid}/autogroup")
        if os.access(autogroup, os.W_OK) and autogroup.read_text():
            await until(lambda: autogroup.read_text().endswith(" nice 5\n"))
        watched.process.kill()
        await watched.end()

    run(go())


def test_reading_goes_on_while_the_worker_speaks_more_than_a_pipe_holds() -> None:
    async def go() -> None:
        watched = Watched(spec("chaos"))
        await watched.load()
        watched.process.send(m.Synthesize(1, 1, "word " * 5000, {}))
        await watched.receive(m.Done)
        sound = [message for message in watched.messages if isinstance(message, m.Audio)]
        assert sum(len(message.pcm) for message in sound) == 5000 * 480
        watched.process.send(m.Synthesize(2, 1, "word " * 5000, {}))
        await asyncio.sleep(0.05)
        watched.process.kill()
        assert await watched.end() == Exit(-9)

    run(go())
