"""One worker process and its pipes: spawn, write, read, see it exit. Knows nothing of jobs.

Everything happens in callbacks on the event loop's thread, without a task, a queue or a thread.
The pipes are this module's own, because asyncio's ``Process.wait()`` hangs while a paused pipe
holds data and its child watcher can lose the cause of an exit; a pidfd does neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import voice_worker
from voice_server.core.errors import WorkerStartError
from voice_server.workers.scratch import Scratch
from voice_server.workers.stderr import StderrLog
from voice_worker import messages as m
from voice_worker.protocol import Connection, JobState, RemoteProtocolError, Role

logger = logging.getLogger(__name__)

BOOTSTRAP: Final = Path(voice_worker.__file__).with_name("_bootstrap.py")
READ_SIZE: Final = 1 << 16
PIPE_SIZE: Final = 1 << 18  # what a worker can send while the loop is busy
MAX_UNSENT: Final = 4 << 20  # a worker that leaves this much unread does not read at all
MOST_LAST_READS: Final = 64  # after its exit; more than the pipes can hold
AUTOGROUP_TRIES: Final = 50
EOF_GRACE: Final = 0.25  # between its closed stdout and its exit; then it is killed

# The rest of the server's environment, keys above all, is none of a model's business.
_PASSED: Final = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "HF_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    )
)
_PASSED_PREFIXES: Final = (
    *("LC_", "XDG_", "CUDA", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "HSA_", "ROCM_", "TORCH"),
    *("PYTORCH_", "TRITON_", "HF_HUB_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "ORT_", "ESPEAK_"),
)
# One thread each: a pool of workers that all use every core is slower than one that does not.
_THREADS: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class WorkerSpec:
    """How to start one worker and how long to wait for it. All times in seconds.

    ``first_chunk_timeout``, ``gap_timeout`` and ``job_timeout`` count only while the job owes
    sound: not while it waits for text or for credit. ``memory_limit_mb``: a worker above this
    resident size is replaced between two jobs. ``nice``: added to its scheduling priority.
    """

    backend: str
    python: Path
    entry: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    load_timeout: float = 300.0
    first_chunk_timeout: float = 10.0
    gap_timeout: float = 10.0
    job_timeout: float = 120.0
    stop_timeout: float = 5.0
    cancel_timeout: float = 2.0
    prepare_timeout: float = 120.0
    ping_interval: float = 10.0
    ping_timeout: float = 5.0
    memory_limit_mb: float | None = None
    nice: int = 0

    def environment(self, of: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What the worker sees of the server's environment, thread counts, and ``env``."""
        passed = {k: v for k, v in of.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)}
        return {**_THREADS, **passed, **self.env}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. ``code`` is negative for a signal, as in subprocess."""

    code: int

    @property
    def is_from_outside(self) -> bool:
        """A signal that operators and the kernel send, and that programs do not send themselves."""
        return -self.code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exited with code {self.code}"
        try:
            return f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was ended by signal {-self.code}"


class WorkerProcess:
    """A running process. ``on_messages`` and ``on_fault`` until ``mute``; ``on_exit`` once, last.

    ``is_ending``: all that it will ever say was read, though maybe not yet handed on. It takes in
    nothing more, and its exit or a fault follows.

    Raises WorkerStartError when it cannot be spawned.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        on_messages: Callable[[Sequence[m.Message]], None],
        on_fault: Callable[[str], None],
        on_exit: Callable[[Exit], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._spec = spec
        self._on_messages = on_messages
        self._on_fault = on_fault
        self._on_exit = on_exit
        self._connection = Connection(Role.SERVER)
        self._scratch = Scratch(spec.env.get("TMPDIR"))
        self._popen = _spawn(spec, self._scratch)
        self.pid = self._popen.pid
        self.stderr = StderrLog(spec.backend, self.pid)
        self._stdin, self._stdout, self._stderr = (_own(p) for p in _pipes(self._popen))
        self._unsent = bytearray()
        self._is_muted = False
        self.is_ending = False
        self._eof_timer: asyncio.TimerHandle | None = None
        self.exit: Exit | None = None
        self._loop.add_reader(self._stdout, self._read_stdout)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._pidfd = _pidfd(self.pid)
        if self._pidfd is None:
            self._loop.call_later(0.05, self._poll_exit)
        else:
            self._loop.add_reader(self._pidfd, self._finish)
        if spec.nice:
            self._be_nice()

    def send(self, *messages: m.Message) -> None:
        """Write the messages, now if the pipe takes them, else as soon as it does; to one that is
        ending, not at all.

        Raises LocalProtocolError for one that is not legal; those before it are sent.
        """
        if self.is_ending:
            return
        data = b""
        try:
            for message in messages:
                data += self._connection.send(message)
        finally:
            if data and self.exit is None and not self._is_muted:
                self._write(data)

    def is_open(self, job: int) -> bool:
        """May anything be said about this job? Not when its end was read, even if the messages
        are still being handed on."""
        return self._connection.job_state(job) is not JobState.OVER

    def mute(self) -> None:
        """Nothing it says counts any more. Its stderr is still read: it may say why."""
        if not self._is_muted:
            self._is_muted = True
            self._unsent.clear()
            if self.exit is None:
                self._loop.remove_writer(self._stdin)
                self._loop.remove_reader(self._stdout)

    def ask_for_stacks(self) -> None:
        """Have faulthandler print every thread's stack to stderr. Needs no help of the GIL."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL for the worker and everything it has started. ``on_exit`` follows."""
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def resident_mb(self) -> float | None:
        """Memory it holds; None where the system does not say."""
        try:
            statm = Path(f"/proc/{self.pid}/statm").read_bytes()
        except OSError:
            return None
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _be_nice(self) -> None:
        spec = self._spec
        try:
            os.setpriority(os.PRIO_PGRP, self.pid, spec.nice)
        except OSError as exc:
            logger.warning("%s: nice %d refused: %s", spec.backend, spec.nice, exc)
        else:
            self._be_nice_among_sessions(AUTOGROUP_TRIES)

    def _be_nice_among_sessions(self, tries: int) -> None:
        # A worker is a session of its own. Where the kernel shares the processors out by session
        # (sched(7), "The autogroup feature"), it heeds a process's nice only within its session.
        if self.exit is not None:
            return
        try:
            Path(f"/proc/{self.pid}/autogroup").write_text(str(self._spec.nice))
        except BlockingIOError:
            # Of all that is not root it takes one such change in a tenth of a second.
            if tries > 1:
                self._loop.call_later(0.11, self._be_nice_among_sessions, tries - 1)
        except OSError:
            pass  # no such feature here

    def _signal(self, number: int) -> None:
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _write(self, data: bytes) -> None:
        if not self._unsent:
            try:
                written = os.write(self._stdin, data)
            except BlockingIOError:
                written = 0
            except OSError:
                return  # it is dying; its exit says more than our broken pipe
            if written == len(data):
                return
            data = data[written:]
            self._loop.add_writer(self._stdin, self._write_more)
        self._unsent += data
        if len(self._unsent) > MAX_UNSENT:
            self._fault(f"has left {len(self._unsent)} bytes unread")

    def _write_more(self) -> None:
        try:
            written = os.write(self._stdin, self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        else:
            del self._unsent[:written]
        if not self._unsent:
            self._loop.remove_writer(self._stdin)

    def _read_stdout(self) -> None:
        try:
            data = os.read(self._stdout, READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self._receive(data)
            return
        self._loop.remove_reader(self._stdout)
        self.is_ending = True
        # The exit follows at once and says why. Killing now would be right only if it does not.
        self._eof_timer = self._loop.call_later(EOF_GRACE, self._stay_away)

    def _stay_away(self) -> None:
        self._fault("closed its end of the pipe and lives on")

    def _receive(self, data: bytes) -> None:
        try:
            messages = self._connection.receive_data(data)
        except RemoteProtocolError as exc:
            self.is_ending = True
            self._on_messages(exc.received)
            self._fault(f"broke the protocol: {exc}")
        else:
            if messages:
                self._on_messages(messages)

    def _fault(self, what: str) -> None:
        if not self._is_muted:
            self._on_fault(what)

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self.stderr.feed(data, self._loop.time())
        else:
            self._loop.remove_reader(self._stderr)

    def _poll_exit(self) -> None:
        """Where there is no pidfd."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._loop.call_later(0.05, self._poll_exit)
        else:
            self._finish()

    def _finish(self) -> None:
        """It has exited: take what it still said, end its children, reap it, close everything."""
        self.is_ending = True
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        # Before it is reaped: until then nobody else can have its process group's number.
        self.kill()
        # Bounded, because a child of its own may have the pipes and write for ever.
        for _ in range(MOST_LAST_READS):
            if self._is_muted or not (data := _read_now(self._stdout)):
                break
            self._receive(data)
        self.mute()
        for _ in range(MOST_LAST_READS):
            if not (data := _read_now(self._stderr)):
                break
            self.stderr.feed(data, self._loop.time())
        self.stderr.close(self._loop.time())
        self.exit = Exit(self._popen.wait())
        for descriptor in (self._stdout, self._stderr, self._pidfd):
            if descriptor is not None:
                self._loop.remove_reader(descriptor)
        for descriptor in (self._stdin, self._stdout, self._stderr, self._pidfd):
            if descriptor is not None:
                os.close(descriptor)
        if not self._scratch.remove_empty():
            # A model may have put gigabytes there.
            self._loop.run_in_executor(None, self._scratch.remove)
        self._on_exit(self.exit)


def _spawn(spec: WorkerSpec, scratch: Scratch) -> subprocess.Popen[bytes]:
    # On the loop's own thread, which costs it about a millisecond: PR_SET_PDEATHSIG in the worker
    # fires when the thread that started it ends, and a pool's thread may end any time.
    try:
        return subprocess.Popen(
            [spec.python, "-I", "-u", BOOTSTRAP, spec.entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=scratch.environment(spec.environment()),
            start_new_session=True,  # Ctrl-C is for the server; and its children die with it
        )
    except OSError as exc:
        scratch.remove()
        raise WorkerStartError(
            f"{spec.backend}: cannot run {spec.python}: {exc.strerror}."
            f" Run `cli.py backends install {spec.backend}`"
        ) from exc


def _pipes(popen: subprocess.Popen[bytes]) -> list[Any]:
    return [popen.stdin, popen.stdout, popen.stderr]


def _own(pipe: Any) -> int:
    """A descriptor of ours for the pipe, non-blocking; closes the file object around it."""
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    os.set_blocking(descriptor, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's sum of pipe memory is limited
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return descriptor


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _read_now(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_SIZE)
    except (BlockingIOError, OSError):
        return b""
