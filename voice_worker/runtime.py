"""Run one backend behind the pipe: greet, load, then the loop of its kind until Shutdown or EOF."""

from __future__ import annotations

import gc
import os
import sys
import traceback

from voice_worker import messages as m
from voice_worker.backend import BackendError, BackendInfo, BatchBackend, CallbackBackend
from voice_worker.batch import BatchLoop
from voice_worker.failure import describe
from voice_worker.lifeline import tie
from voice_worker.pipe import Pipe
from voice_worker.prompts import Prompts
from voice_worker.segments import SegmentLoop
from voice_worker.stdio import taken_stdio
from voice_worker.wire import info_to_map

EXIT_BROKEN = 70  # EX_SOFTWARE of sysexits.h


def serve(backend: CallbackBackend | BatchBackend) -> None:
    """Entry point of every backend file: ``if __name__ == "__main__": serve(Kokoro())``.

    Returns never: the process ends with status 0 after a Shutdown and at the server's end, with 1
    when the backend did not load, with 70 when it raised where nothing may be raised.
    """
    if (stdio := taken_stdio()) is None:
        sys.exit("run me through voice_worker/_bootstrap.py")
    tie()
    pipe = Pipe(*stdio)
    python = ".".join(str(part) for part in sys.version_info[:3])
    pipe.send(m.Hello(backend.name, python, os.getpid()))
    pipe.start()
    try:
        status = _run(backend, pipe)
    except BaseException:
        traceback.print_exc()
        status = EXIT_BROKEN
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a model's threads and exit handlers can hold a process for minutes.
    os._exit(status)


def _run(backend: CallbackBackend | BatchBackend, pipe: Pipe) -> int:
    _, message = pipe.get()
    if not isinstance(message, m.Load):
        return 0  # a Shutdown: the table allows nothing else here
    try:
        info = _load(backend, message)
        ready = m.Ready(info_to_map(info))
        # What was loaded stays; the collector need not look at it again between two chunks.
        gc.freeze()
        pipe.send(ready)
    except BaseException as exc:
        failure = describe(exc)
        pipe.send(m.Failed(error=failure.error, code=failure.code, detail=failure.detail))
        return 1
    prompts = Prompts(backend, pipe)
    if isinstance(backend, BatchBackend):
        BatchLoop(backend, info, pipe, prompts).run()
    else:
        SegmentLoop(backend, info, pipe, prompts).run()
    return 0


def _load(backend: CallbackBackend | BatchBackend, message: m.Load) -> BackendInfo:
    info = backend.load(message.options)
    if not isinstance(backend, BatchBackend) and (info.slots != 1 or info.streams_text):
        raise BackendError("only a BatchBackend has several slots or streams text")
    return info
