"""Recordings put into, changed in and taken out of a real folder that is really watched."""

from __future__ import annotations

import asyncio
import logging
import os
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recordings import container, pitch_of, wav
from voice_server.control import dropped as dropped_module
from voice_server.control.dropped import DroppedVoices
from voice_server.core.errors import StorageFull
from voice_server.core.voices import Sample, Voice
from voice_server.storage.catalogue import Catalogue
from voice_worker.backend import BackendInfo

pytestmark = pytest.mark.anyio

TONE = BackendInfo(sample_rate=24_000, clones=True)


@asynccontextmanager
async def watched(
    tmp_path: Path, *, is_owner: bool = True
) -> AsyncIterator[tuple[Path, Catalogue]]:
    catalogue = Catalogue(tmp_path / "data")
    catalogue.is_owner = is_owner
    dropped = DroppedVoices(tmp_path / "voice_samples", catalogue)
    dropped.start()
    try:
        await asyncio.wait_for(dropped.scanned.wait(), 60)
        yield dropped.folder, catalogue
    finally:
        await asyncio.wait_for(dropped.stop(), 60)


class Clock:
    """Stands in for the module ``time``: it passes when the test says so, and no file is old."""

    def __init__(self) -> None:
        self.passed = 0.0

    def time(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 1_000 + self.passed


async def until(condition: Callable[[], object], timeout: float = 60) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


def heard(catalogue: Catalogue, name: str) -> np.ndarray:
    path = catalogue.resolve(name, "tone", TONE)["samples"][0]["path"]
    with wave.open(path) as file:
        assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
        return np.frombuffer(file.readframes(1 << 24), "<i2")


async def test_a_file_that_is_dropped_in_is_a_voice_and_goes_with_its_file(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "Obama.wav").write_bytes(wav(pitch=180))
        await until(lambda: "obama" in catalogue)
        assert catalogue.get("obama").kind == "dropped"
        assert catalogue.get("obama").name == "Obama"
        assert pitch_of(heard(catalogue, "Obama")) == pytest.approx(180, abs=1)
        (folder / "Obama.wav").unlink()
        await until(lambda: "obama" not in catalogue)
        assert not catalogue.problems


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.mp3", lambda: container("mp3", "libmp3lame")),
        ("b.FLAC", lambda: container("flac", "flac")),
        ("c.webm", lambda: container("webm", "libopus", 48_000, "libvpx")),
    ],
)
async def test_each_kind_of_recording_is_taken(
    tmp_path: Path, name: str, make: Callable[[], bytes]
) -> None:
    (tmp_path / "voice_samples").mkdir()
    (tmp_path / "voice_samples" / name).write_bytes(make())
    async with watched(tmp_path) as (_, catalogue):
        assert pitch_of(heard(catalogue, name[0])) == pytest.approx(200, abs=1)


async def test_a_text_of_the_same_name_is_the_transcript(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "nova.txt").write_text("Hello, this is Nova. ", "utf-8")
        (folder / "nova.wav").write_bytes(wav())
        await until(lambda: "nova" in catalogue)
        assert catalogue.get("nova").samples[0].transcript == "Hello, this is Nova."
        before = catalogue.get("nova").digest
        (folder / "nova.txt").write_text("Hallo.", "utf-8")
        await until(lambda: catalogue.get("nova").samples[0].transcript == "Hallo.")
        assert catalogue.get("nova").digest != before
        (folder / "nova.txt").unlink()
        await until(lambda: catalogue.get("nova").samples[0].transcript is None)


async def test_a_bad_file_is_named_with_its_reason_and_disturbs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        with caplog.at_level(logging.WARNING):
            (folder / "text.mp3").write_text("I am not a recording at all. " * 100)
            (folder / "empty.wav").touch()
            (folder / "short.wav").write_bytes(wav(seconds=0.4))
            (folder / "latin.txt").write_bytes(b"\xff\xfe\xe4")
            (folder / "latin.wav").write_bytes(wav())
            (folder / "README.md").write_text("not a recording")
            await until(lambda: len(catalogue.problems) == 4 and "latin" in catalogue)
        codes = {Path(p.path).name: p.code for p in catalogue.problems.values()}
        assert codes == {
            "text.mp3": "not_audio",
            "empty.wav": "empty_file",
            "short.wav": "audio_too_short",
            "latin.txt": "bad_transcript",
        }
        assert "text.mp3" in caplog.text
        assert len(catalogue) == 1
        (folder / "text.mp3").write_bytes(container("mp3", "libmp3lame"))
        await until(lambda: "text" in catalogue)
        assert str(folder / "text.mp3") not in catalogue.problems


async def test_a_transcript_that_cannot_be_read_costs_no_voice(tmp_path: Path) -> None:
    folder = tmp_path / "voice_samples"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(wav())
    # It is a file, and whoever reads it gets an error, the superuser too.
    (folder / "b.txt").symlink_to("/proc/self/mem")
    async with watched(tmp_path) as (_, catalogue):
        assert {v.id for v in catalogue.voices()} == {"a", "b", "c"}
        assert catalogue.get("b").samples[0].transcript is None
        [problem] = catalogue.problems.values()
        assert (Path(problem.path).name, problem.code) == ("b.txt", "unreadable")


async def test_a_file_that_is_copied_slowly_becomes_a_voice_once_it_is_whole(
    tmp_path: Path,
) -> None:
    whole = wav(seconds=4, pitch=220)
    async with watched(tmp_path) as (folder, catalogue):
        with open(folder / "slow.wav", "wb") as file:
            for start in range(0, len(whole), len(whole) // 8):
                file.write(whole[start : start + len(whole) // 8])
                file.flush()
                await asyncio.sleep(0.06)
        await until(lambda: "slow" in catalogue)
        await until(lambda: catalogue.get("slow").samples[0].duration == pytest.approx(4, abs=0.1))
        assert not catalogue.problems


async def test_a_slow_copy_is_judged_once_and_a_quick_drop_is_not_kept_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(dropped_module, "time", clock)
    catalogue = Catalogue(tmp_path / "data")
    dropped = DroppedVoices(tmp_path / "voice_samples", catalogue)
    dropped._open()
    judged: list[int] = []
    make = dropped._make

    def counted(name: str, signature: list[int]) -> Any:
        judged.append(signature[0])
        return make(name, signature)

    monkeypatch.setattr(dropped, "_make", counted)
    whole, path = wav(), dropped.folder / "slow.wav"
    sizes = [len(whole) * part // 10 for part in range(1, 11)]
    # It grows every 0.4 s at first, then with pauses of a second and a half.
    for size, pause in zip(sizes, [0.4] * 5 + [1.5] * 5, strict=True):
        path.write_bytes(whole[:size])
        is_growing = await dropped._look()
        assert is_growing
        clock.passed += pause
    clock.passed += 3.0
    assert not await dropped._look()
    assert judged == [len(whole)]
    assert "slow" in catalogue
    assert not catalogue.problems
    quick = dropped.folder / "quick.wav"
    quick.write_bytes(whole)
    began = clock.passed
    while await dropped._look():
        clock.passed += 0.15
    assert clock.passed - began < 1.0
    assert "quick" in catalogue


async def test_what_is_copied_without_end_holds_up_neither_start_nor_stop(tmp_path: Path) -> None:
    folder = tmp_path / "voice_samples"
    folder.mkdir()
    (folder / "whole.wav").write_bytes(wav())
    is_over = False

    async def grow() -> None:
        with open(folder / "endless.wav", "wb") as file:
            while not is_over:
                file.write(b"\0" * 64)
                file.flush()
                await asyncio.sleep(0.01)

    growing = asyncio.create_task(grow())
    async with watched(tmp_path) as (_, catalogue):
        assert "whole" in catalogue
    is_over = True
    await growing


async def test_two_files_of_one_name_are_told_apart_by_a_problem(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "twin.wav").write_bytes(wav(pitch=150))
        await until(lambda: "twin" in catalogue)
        (folder / "twin.mp3").write_bytes(container("mp3", "libmp3lame", pitch=300))
        await until(lambda: catalogue.problems)
        (problem,) = catalogue.problems.values()
        assert problem.code == "name_taken"
        assert "rename" in problem.reason
        (folder / "twin.mp3").unlink()
        await until(lambda: not catalogue.problems)
        assert pitch_of(heard(catalogue, "twin")) == pytest.approx(150, abs=1)


async def test_a_second_file_of_a_name_never_takes_it_away(tmp_path: Path) -> None:
    """`Twin.wav` stands before `twin.wav` in every list, but it came later."""
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "twin.wav").write_bytes(wav(pitch=150))
        await until(lambda: "twin" in catalogue)
        (folder / "Twin.wav").write_bytes(wav(pitch=300))
        await until(lambda: catalogue.problems)
        assert [Path(path).name for path in catalogue.problems] == ["Twin.wav"]
        assert pitch_of(heard(catalogue, "twin")) == pytest.approx(150, abs=1)
    async with watched(tmp_path) as (_, catalogue):
        assert pitch_of(heard(catalogue, "twin")) == pytest.approx(150, abs=1)
        assert [Path(path).name for path in catalogue.problems] == ["Twin.wav"]


async def test_a_name_that_is_no_text_is_a_problem_that_can_be_told(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav")).write_bytes(wav())
        await until(lambda: catalogue.problems)
        (problem,) = catalogue.problems.values()
        assert problem.path.encode().endswith(b"/caf\xef\xbf\xbd.wav")
        assert "UTF-8" in problem.reason
        assert not catalogue.voices()


async def test_the_watch_that_such_a_name_ends_is_soon_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voice_server.control.dropped._LONGEST_PAUSE", 3_600)
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/voice_samples/caf\xe9.wav"))
    async with watched(tmp_path) as (folder, catalogue):
        for name in ("nova", "vega"):
            bad.write_bytes(wav())
            await until(lambda: catalogue.problems)
            (folder / f"{name}.wav").write_bytes(wav())
            await until(lambda name=name: name in catalogue)
            bad.unlink()
            await until(lambda: not catalogue.problems)
    assert "TaskGroup" not in caplog.text


async def test_a_dropped_file_never_replaces_a_voice_of_another_door(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "data")
    cloned = Voice("maya", "Maya", "cloned", samples=(Sample("s", "/x.wav", "00"),))
    catalogue._put(cloned)
    dropped = DroppedVoices(tmp_path / "voice_samples", catalogue)
    dropped.start()
    (tmp_path / "voice_samples").mkdir(exist_ok=True)
    (tmp_path / "voice_samples" / "maya.wav").write_bytes(wav())
    await until(lambda: catalogue.problems)
    assert catalogue.get("maya") == cloned
    (tmp_path / "voice_samples" / "maya.wav").unlink()
    await until(lambda: not catalogue.problems)
    assert catalogue.get("maya") == cloned
    await dropped.stop()


async def test_a_restart_decodes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "old.wav").write_bytes(wav())
        await until(lambda: "old" in catalogue)
        before = catalogue.get("old")
    index = tmp_path / "data" / "dropped" / "index.json"
    await until(index.exists)
    monkeypatch.setattr(
        "voice_server.control.dropped.prepare_sample", lambda *_: pytest.fail("decoded again")
    )
    async with watched(tmp_path) as (_, catalogue):
        assert catalogue.get("old") == before


async def test_the_owner_alone_removes_what_is_decoded_and_only_what_is_old(
    tmp_path: Path,
) -> None:
    """A command beside a server, or a server beside a command, took away what the other spoke."""
    cache = tmp_path / "data" / "dropped"
    cache.mkdir(parents=True)
    for name in ("young.wav", "old.wav"):
        (cache / name).touch()
    os.utime(cache / "old.wav", (1, 1))
    async with watched(tmp_path, is_owner=False):
        assert {path.name for path in cache.glob("*.wav")} == {"young.wav", "old.wav"}
    async with watched(tmp_path):
        assert {path.name for path in cache.glob("*.wav")} == {"young.wav"}


async def test_what_is_decoded_already_counts_as_young_again(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "a.wav").write_bytes(wav())
        await until(lambda: "a" in catalogue)
        decoded = Path(catalogue.get("a").samples[0].path)
    (tmp_path / "data" / "dropped" / "index.json").unlink()
    os.utime(decoded, (1, 1))
    async with watched(tmp_path, is_owner=False) as (_, catalogue):
        assert catalogue.get("a").samples[0].path == str(decoded)
        assert decoded.stat().st_mtime > 1_000_000_000


async def test_a_damaged_index_costs_a_decoding_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "voice_samples").mkdir()
    (tmp_path / "voice_samples" / "old.wav").write_bytes(wav())
    (tmp_path / "data" / "dropped").mkdir(parents=True)
    (tmp_path / "data" / "dropped" / "index.json").write_text('{"old.wav": {"signature": 3}}')
    async with watched(tmp_path) as (_, catalogue):
        assert "old" in catalogue


async def test_pipes_folders_and_links_to_nowhere_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "voice_samples"
    folder.mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "nowhere.wav").symlink_to(tmp_path / "missing")
    (folder / ".hidden.wav").write_bytes(wav())
    (folder / "good.wav").write_bytes(wav())
    async with watched(tmp_path) as (_, catalogue):
        assert [voice.id for voice in catalogue.voices()] == ["good"]


async def test_a_name_that_is_no_id_is_slugged_and_still_found_by_its_name(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "Zoë Smith (take 2).wav").write_bytes(wav())
        await until(lambda: "zoe_smith_take_2" in catalogue)
        assert catalogue.resolve("Zoë Smith (take 2)", "tone", TONE)["samples"]


async def test_listeners_hear_of_each_change(tmp_path: Path) -> None:
    async with watched(tmp_path) as (folder, catalogue):
        heard_of: list[tuple[str, bool]] = []
        catalogue.subscribe(lambda voice_id, voice: heard_of.append((voice_id, voice is not None)))
        (folder / "x.wav").write_bytes(wav())
        await until(lambda: heard_of == [("x", True)])
        (folder / "x.wav").unlink()
        await until(lambda: heard_of == [("x", True), ("x", False)])


def filling(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[list[Path]], bool]) -> list[Path]:
    """A disk without room for a recording while ``is_full`` of those that found none before."""
    write, refused = dropped_module.write_atomic, list[Path]()

    def filled(path: Path, data: bytes) -> None:
        if path.suffix == ".wav" and is_full(refused):
            refused.append(path)
            raise StorageFull("no room; free some")
        write(path, data)

    monkeypatch.setattr(dropped_module, "write_atomic", filled)
    return refused


async def test_what_found_no_room_is_a_voice_as_soon_as_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True
    tries = filling(monkeypatch, lambda _: is_full)
    monkeypatch.setattr(dropped_module, "_TRY_AGAIN", 0.0)
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "Maya.wav").write_bytes(wav())
        await until(lambda: tries)
        (folder / "look.txt").touch()  # It would look again by itself, seconds later.
        await until(lambda: len(tries) > 1)
        assert [problem.code for problem in catalogue.problems.values()] == ["storage_full"]
        is_full = False
        (folder / "look.txt").unlink()
        await until(lambda: "maya" in catalogue)
        assert not catalogue.problems
    assert caplog.text.count("no room") == 1


async def test_what_found_no_room_is_not_decoded_again_at_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filling(monkeypatch, lambda tries: not tries)
    monkeypatch.setattr(dropped_module, "_TRY_AGAIN", 3_600.0)
    async with watched(tmp_path) as (folder, catalogue):
        (folder / "Maya.wav").write_bytes(wav())
        await until(lambda: catalogue.problems)
        (folder / "Noa.wav").write_bytes(wav())
        await until(lambda: "noa" in catalogue)
        assert "maya" not in catalogue
