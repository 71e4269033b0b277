"""What chaos can do wrong, by the word that asks for it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from voice_worker import BackendError
from voice_worker.stdio import taken_stdio

_leaked: list[bytearray] = []


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def print_everywhere() -> None:
    print("x" * 5000)
    os.write(1, b"raw write to fd 1\n")
    ctypes.CDLL(None).puts(b"printf from C")
    ctypes.CDLL(None).fflush(None)


def flood() -> None:
    line = b"noise " * 170 + b"\n"
    for _ in range(10_000):
        os.write(2, line)


def raise_error() -> NoReturn:
    raise ValueError("model said no")


def refuse() -> NoReturn:
    raise BackendError("no such language here", code="unsupported_language")


def raise_memory_error() -> NoReturn:
    raise MemoryError("4 TB wanted")


def raise_device_memory_error() -> NoReturn:
    raise OutOfMemoryError("CUDA out of memory")


def lose_device() -> NoReturn:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def exit_politely() -> NoReturn:
    sys.exit("could not download")


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> NoReturn:
    while True:
        time.sleep(3600)


def hold_the_lock() -> NoReturn:
    while True:
        # PyDLL keeps the interpreter's lock: no other thread runs, not even the reader.
        ctypes.PyDLL(None).sleep(3600)


def write_garbage() -> None:
    if (stdio := taken_stdio()) is not None:
        os.write(stdio[1], b"\xff" * 64)


def start_grandchild() -> None:
    child = subprocess.Popen(["sleep", "3600"])
    print(f"grandchild {child.pid}", file=sys.stderr, flush=True)


def check_imports() -> None:
    try:
        import voice_server  # noqa: F401
    except ModuleNotFoundError:
        return
    raise AssertionError("voice_server can be imported from a backend")


ALL: dict[str, Callable[[], object]] = {
    "print": print_everywhere,
    "flood": flood,
    "raise": raise_error,
    "refuse": refuse,
    "oom": raise_memory_error,
    "cudaoom": raise_device_memory_error,
    "cudalost": lose_device,
    "sysexit": exit_politely,
    "exit": lambda: os._exit(7),
    "segfault": segfault,
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": hang,
    "spin": hold_the_lock,
    "slow": lambda: time.sleep(0.2),
    "leak": lambda: _leaked.append(bytearray(os.urandom(1 << 20) * 64)),
    "garbage": write_garbage,
    "grandchild": start_grandchild,
    "imports": check_imports,
}
