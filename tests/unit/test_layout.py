"""What CONTRIBUTING.md promises about the files themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("voice_server", "voice_worker", "backends", "bench", "examples")
# About 400 lines; tests are read one at a time and may be longer.
LONGEST, LONGEST_TEST = 430, 550
SHIM = 15


def sources(*folders: str) -> list[Path]:
    """Our own Python files in these folders, without what is installed beside them."""
    found: list[Path] = []
    for folder in folders:
        for place, inside, names in os.walk(ROOT / folder):
            inside[:] = [name for name in inside if name[0] != "." and name != "node_modules"]
            found += (Path(place, name) for name in names if name.endswith(".py"))
    return found


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


@pytest.mark.parametrize(
    ("files", "longest"),
    [
        ([*sources(*PRODUCT), *ROOT.glob("*.py")], LONGEST),
        (sources("tests"), LONGEST_TEST),
        ([ROOT / "cli.py", ROOT / "server.py"], SHIM),
    ],
    ids=["product", "tests", "shims"],
)
def test_no_file_is_too_long_to_be_read_at_once(files: list[Path], longest: int) -> None:
    assert files
    too_long = {str(path.relative_to(ROOT)): lines(path) for path in files if lines(path) > longest}
    assert not too_long


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [path for path in sources(*PRODUCT) if path.stem in empty]
