"""Break everything, print what was reached beside what is wanted, fail when one falls short.

python -m tests.chaos [--scale 1.0] [--only WORDS]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import date

from tests.chaos import sockets, tunnel, workers, writing  # noqa: F401  (they fill the table)
from tests.chaos.lines import LINES, Reached


def main() -> int:
    parser = argparse.ArgumentParser(description="Failures on purpose.")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is the whole table's counts")
    parser.add_argument("--only", default="", help="lines whose name holds these words")
    args = parser.parse_args()
    short, rows = 0, []
    print(f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for line in LINES:
        if args.only not in line.name:
            continue
        before = time.perf_counter()
        try:
            reached = line.run(args.scale)
        except Exception as exc:
            reached = Reached(f"{type(exc).__name__}: {exc}", False)
        took = time.perf_counter() - before
        short += not reached.is_enough
        mark = "ok   " if reached.is_enough else "SHORT"
        print(f"{mark} {line.name} ({took:.0f} s)\n      wanted  {line.wanted}", flush=True)
        print(f"      reached {reached.figure}", flush=True)
        rows.append({"line": line.name, "reached": reached.figure, "ok": reached.is_enough})
    print(json.dumps({"chaos": rows, "scale": args.scale}))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
