"""What a full catalogue costs: python -m bench.catalogue [--voices 10000] [--folder DISK]

Imports packages as four clients at once do over HTTP, then asks for pages and for one voice, on a
catalogue that holds them all. Beside it, on the same disk, four clients without a server do only
what durability asks for: a folder, its recording and their fsyncs, a row and its commit. Prints a
table and one JSON line. ``--fsync-ms`` makes every fsync of a file or folder that much slower, in
both, as on a disk that is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from voice_server.audio.encode import encode_whole
from voice_server.control.packages import Packages
from voice_server.core.manifest import write_package
from voice_server.core.voices import Sample, Voice
from voice_server.storage.atomic import sync_folder
from voice_server.storage.catalogue import Catalogue
from voice_server.web import profiles
from voice_worker.backend import BackendInfo

TONE = BackendInfo(sample_rate=24_000, clones=True)
PAGE = 100
CLIENTS = 4


def package(number: int, wav: bytes) -> bytes:
    """A package of a three-second voice."""
    at = f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z"
    sample = Sample("s", "", "", f"Text of voice {number}.", 3.0, 24_000, -20.0)
    return write_package(
        Voice(
            f"voice_{number}", f"Voice {number}", "cloned", samples=(sample,),
            description="A voice of the benchmark", tags=("bench",), created_at=at, updated_at=at,
        ),
        [wav],
    )  # fmt: skip


def timed(function: object, times: int = 50) -> float:
    """Median milliseconds of one call."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        function()  # type: ignore[operator]
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1000


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def crowd(voices: int, one: Callable[[int], Awaitable[None]]) -> tuple[float, list[float]]:
    """Do ``one`` for each number, by as many at once as there are clients: voices a second, and the
    milliseconds of each."""
    numbers, took = iter(range(voices)), []

    async def client() -> None:
        for number in numbers:
            before = time.perf_counter()
            await one(number)
            took.append((time.perf_counter() - before) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return voices / (time.perf_counter() - started), took


async def bare(folder: Path, voices: int, wav: bytes) -> tuple[float, list[float]]:
    """What a voice costs that is only stored, by hand."""
    database = sqlite3.connect(folder / "bare.db", check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE voices (id PRIMARY KEY, told)")
    writer, told = threading.Lock(), "x" * 600

    def store(number: int) -> None:
        place = folder / str(number)
        place.mkdir()
        with open(place / "ref.wav", "xb") as file:
            file.write(wav)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(place)
        sync_folder(folder)
        with writer, database:
            database.execute("INSERT INTO voices VALUES (?, ?)", (number, told))

    try:
        return await crowd(voices, lambda number: asyncio.to_thread(store, number))
    finally:
        database.close()


async def measure(folder: Path, voices: int) -> dict[str, float]:
    pcm = (np.random.default_rng(1).standard_normal(72_000) * 3_000).astype(np.int16)
    wav = encode_whole(pcm.tobytes())
    data = [package(number, wav) for number in range(min(voices, 500))]

    (folder / "bare").mkdir()
    bare_rate, bare_took = await bare(folder / "bare", min(voices, 1_000), wav)

    catalogue = Catalogue(folder / "data")
    await catalogue.load()
    packages = Packages(catalogue)
    await packages.unpack(package(10**6, wav))  # imports SQLAlchemy

    async def imported(number: int) -> None:
        await packages.unpack(data[number] if number < len(data) else package(number, wav))

    rate, took = await crowd(voices, imported)

    def page() -> None:
        offset = len(catalogue) // 2
        found = catalogue.voices()[offset : offset + PAGE]
        profiles.Profiles([profiles._profile(voice) for voice in found]).model_dump_json()

    name = f"Voice {voices // 2}"
    figures = {
        "voices": float(voices),
        "imports_per_s": rate,
        "import_median_ms": statistics.median(took),
        "import_p99_ms": p99(took),
        "bare_per_s": bare_rate,
        "bare_median_ms": statistics.median(bare_took),
        "bare_p99_ms": p99(bare_took),
        "import_to_bare": rate / bare_rate,
        "page_of_100_ms": timed(page),
        "resolve_ms": timed(lambda: catalogue.resolve(name, "tone", TONE), 500),
    }
    await catalogue.update("voice_1", description="changed")
    started = time.perf_counter()
    page()
    figures["page_after_change_ms"] = (time.perf_counter() - started) * 1000
    await catalogue.close()

    again = Catalogue(folder / "data")
    started = time.perf_counter()
    await again.load(is_owner=True)
    figures["start_ms"] = (time.perf_counter() - started) * 1000
    assert len(again) == voices + 1
    started = time.perf_counter()
    await again.close()
    figures["sweep_ms"] = (time.perf_counter() - started) * 1000
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="on this disk, instead of the temporary one")
    parser.add_argument("--fsync-ms", type=float, default=0.0, help="that much slower, each")
    arguments = parser.parse_args()
    if arguments.fsync_ms:
        fsync = os.fsync

        def slow(descriptor: int) -> None:
            time.sleep(arguments.fsync_ms / 1000)
            fsync(descriptor)

        os.fsync = slow
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = asyncio.run(measure(Path(folder), arguments.voices))
    wanted = {"imports_per_s": "≥ 100", "page_of_100_ms": "≤ 50", "page_after_change_ms": "≤ 50"}
    for name, value in figures.items():
        print(f"{name:22} {value:12.3f}   {wanted.get(name, '')}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
