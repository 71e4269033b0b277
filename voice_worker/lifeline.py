"""A worker's ties to its server: it dies with it, and shows its stacks when asked."""

from __future__ import annotations

import faulthandler
import signal
import sys

# The server sends this before it kills a worker that hangs. The dump is written to stderr by a
# handler in C, so it also works while a thread sits in C code and holds the interpreter's lock.
STACK_DUMP_SIGNAL = signal.SIGUSR1

PR_SET_PDEATHSIG = 1


def tie() -> None:
    """Call once, from the main thread: the kernel forgets the tie when that thread ends."""
    faulthandler.enable()
    faulthandler.register(STACK_DUMP_SIGNAL, all_threads=True, chain=False)
    # Ctrl-C is for the server, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        # The reader's os._exit at EOF does the same; this also works while the lock is held.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
