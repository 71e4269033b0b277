"""One real worker process on plain pipes, for tests of the worker's side alone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from voice_server.workers.scratch import Scratch
from voice_worker import messages as m
from voice_worker.protocol import Connection, Role

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = ROOT / "voice_worker" / "_bootstrap.py"
PATIENCE = 60.0  # seconds; a bound on every wait, not a measure of anything


class RawWorker:
    """Started and loaded on entry (unless ``load`` is False), killed on exit."""

    def __init__(
        self,
        backend: str | Path,
        options: dict[str, Any] | None = None,
        *,
        load: bool = True,
        python: str = sys.executable,
    ) -> None:
        entry = backend if isinstance(backend, Path) else ROOT / "backends" / backend / "backend.py"
        self._scratch = Scratch()
        self.process = subprocess.Popen(
            [python, "-I", "-u", BOOTSTRAP, entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=self._scratch.environment({**os.environ, "OMP_NUM_THREADS": "1"}),
        )
        self.connection = Connection(Role.SERVER)
        self._received: list[m.Message] = []
        self._stderr = bytearray()
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()
        if load:
            self.hello = self.get()
            self.send(m.Load(options or {}))
            self.ready = self.get()

    def __enter__(self) -> RawWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._drain.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        self._scratch.remove()

    @property
    def stderr(self) -> str:
        return self._stderr.decode(errors="replace")

    def wait_for_stderr(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.stderr:
            assert time.monotonic() < deadline, f"{text!r} not in {self.stderr[-2000:]!r}"
            time.sleep(0.01)

    def wait(self) -> int:
        """The exit status of a worker that is expected to go by itself."""
        status = self.process.wait(PATIENCE)
        self._drain.join(PATIENCE)
        return status

    def send(self, *messages: m.Message) -> None:
        self.write(b"".join(self.connection.send(message) for message in messages))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def get(self) -> m.Message:
        """The next message. Raises EOFError at a clean end, RemoteProtocolError at another."""
        assert self.process.stdout is not None
        while not self._received:
            is_readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert is_readable, f"nothing came; stderr: {self.stderr[-2000:]}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                self.connection.receive_eof()
                raise EOFError
            self._received += self.connection.receive_data(data)
        return self._received.pop(0)

    def job(self, number: int) -> Iterator[m.Message]:
        """The messages until this job is over; those of other jobs are passed over."""
        while True:
            message = self.get()
            if getattr(message, "job", None) == number:
                yield message
                if isinstance(message, m.Done | m.Failed):
                    return

    def speak(self, number: int, text: str, **fields: Any) -> Speech:
        self.send(
            m.Synthesize(number, fields.pop("attempt", 1), text, fields.pop("voice", {}), **fields)
        )
        return Speech(list(self.job(number)))

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 1 << 16):
            self._stderr += data


class Speech:
    """What came of one job."""

    def __init__(self, messages: list[m.Message]) -> None:
        self.messages = messages
        self.pcm = b"".join(x.pcm for x in messages if isinstance(x, m.Audio))
        self.words = [word for x in messages if isinstance(x, m.Words) for word in x.words]
        self.end = messages[-1]

    @property
    def done(self) -> m.Done:
        assert isinstance(self.end, m.Done), self.end
        return self.end

    @property
    def failed(self) -> m.Failed:
        assert isinstance(self.end, m.Failed), self.end
        return self.end
