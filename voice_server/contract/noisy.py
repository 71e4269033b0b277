"""Run in a backend's own interpreter: the backend, while a thread prints all it can.

Stands in for every library that reports its progress: through Python, on file descriptor 1, from C.
``CONTRACT_ENTRY`` in the environment says where the backend is.
"""

import ctypes
import os
import runpy
import sys
import threading
import time
from pathlib import Path

MARK = "noise of the contract"


def print_forever() -> None:
    libc = ctypes.CDLL(None)
    while True:
        print(MARK, "by Python")
        os.write(1, MARK.encode() + b" on descriptor 1\n" + bytes(range(256)) + b"\n")
        libc.puts(MARK.encode() + b" from C")
        libc.fflush(None)
        time.sleep(0.005)


if __name__ == "__main__":
    entry = Path(os.environ["CONTRACT_ENTRY"])
    threading.Thread(target=print_forever, daemon=True).start()
    sys.path.insert(0, str(entry.parent))
    runpy.run_path(str(entry), run_name="__main__")
