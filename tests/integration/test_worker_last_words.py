"""What a worker says in one breath with its end: it counts, and nobody is lent to it any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.listening import pids, pool_of, run, say, spec

# The first of its processes sends its first Done and, in the same write, what no worker may send,
# or nothing any more.
PROGRAM = """
import os
import sys
import numpy as np
from voice_worker import Backend, BackendInfo, pipe, serve

class Odd(Backend):
    name = "odd"

    def load(self, options):
        return BackendInfo(sample_rate=24000)

    def synthesize(self, job):
        yield np.zeros(240, np.float32)

class LastWords(pipe.Pipe):
    def _write(self, data):
        if b"done" not in data or os.path.exists(MARK):
            return super()._write(data)
        open(MARK, "x").close()
        END

from voice_worker import runtime
runtime.Pipe = LastWords
serve(Odd())
"""
ENDS = {
    "garbage": 'super()._write(data + b"\\xff" * 8)',
    "close": "super()._write(data); os.close(self._writer); import time; time.sleep(60)",
}


@pytest.mark.parametrize("end", ENDS)
def test_who_waits_is_not_lent_to_a_worker_that_has_just_ended(tmp_path: Path, end: str) -> None:
    entry = tmp_path / "backend.py"
    mark = str(tmp_path / "mark")
    entry.write_text(PROGRAM.replace("END", ENDS[end]).replace("MARK", repr(mark)))

    async def go() -> None:
        async with pool_of(spec("odd", entry=entry)) as pool:
            before = pids(pool)
            listeners = [say(pool, f"number {n}") for n in range(4)]
            assert {len(await listener.end()) for listener in listeners} == {480}
            assert pids(pool) != before
            assert sum(pool.snapshot()["restarts"].values()) == 1

    run(go())
