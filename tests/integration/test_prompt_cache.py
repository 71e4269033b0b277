"""Prepared voices on disk: room is made, the least used first, and never under a worker's feet."""

from __future__ import annotations

import os
import time
from pathlib import Path

from voice_server.storage.prompts import PromptCache


def prompt(folder: Path, name: str, size: int, age: float) -> str:
    path = folder / "tone" / name
    path.mkdir(parents=True)
    (path / "prompt.safetensors").write_bytes(bytes(size))
    then = time.time() - age
    for entry in (path / "prompt.safetensors", path):
        os.utime(entry, (then, then))
    return str(path)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*")}


def test_the_least_recently_used_go_until_there_is_room(tmp_path: Path) -> None:
    for name, age in (("a", 5_000), ("b", 4_000), ("c", 3_000), ("d", 2_000)):
        prompt(tmp_path, name, 1_000, age)
    assert PromptCache(tmp_path, 2_500, {}).sweep() == 2_000
    assert left(tmp_path) == {"c", "d"}
    assert PromptCache(tmp_path, 2_500, {}).sweep() == 0


def test_being_asked_for_counts_as_use(tmp_path: Path) -> None:
    a = prompt(tmp_path, "a", 1_000, 5_000)
    prompt(tmp_path, "b", 1_000, 4_000)
    PromptCache(tmp_path, 1_000, {a: time.time() - 1_000}).sweep()
    assert left(tmp_path) == {"a"}


def test_what_was_just_used_stays_even_if_there_is_too_much(tmp_path: Path) -> None:
    used = {prompt(tmp_path, name, 1_000, 5_000): time.time() for name in "abc"}
    assert PromptCache(tmp_path, 0, used).sweep() == 0
    assert left(tmp_path) == set("abc")


def test_a_folder_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert PromptCache(tmp_path / "none", 0, {}).sweep() == 0


def test_what_is_not_there_any_more_is_not_remembered(tmp_path: Path) -> None:
    kept = prompt(tmp_path, "a", 1_000, 5_000)
    used = {kept: 1.0, str(tmp_path / "gone"): 1.0, str(tmp_path / "coming"): time.time()}
    PromptCache(tmp_path, 2_000, used).sweep()
    assert list(used) == [kept, str(tmp_path / "coming")]
