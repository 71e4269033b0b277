"""What a full catalogue costs: python -m bench.catalogue [--voices 10000]

Imports packages as four clients at once do over HTTP, then asks for pages and for one voice, on a
catalogue that holds them all, beside a folder of the same files that is only written. Prints a
table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from voice_server.audio.encode import encode_whole
from voice_server.control.packages import Packages
from voice_server.core.manifest import write_package
from voice_server.core.voices import Sample, Voice
from voice_server.storage.atomic import write_atomic
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


async def measure(folder: Path, voices: int) -> dict[str, float]:
    pcm = (np.random.default_rng(1).standard_normal(72_000) * 3_000).astype(np.int16)
    wav = encode_whole(pcm.tobytes())
    data = [package(number, wav) for number in range(min(voices, 500))]

    bare = folder / "bare"
    bare.mkdir()
    started = time.perf_counter()
    for number in range(200):
        write_atomic(bare / f"{number}.wav", wav)
    bare_rate = 200 / (time.perf_counter() - started)

    catalogue = Catalogue(folder / "data")
    await catalogue.load()
    packages = Packages(catalogue)
    await packages.unpack(package(10**6, wav))  # imports SQLAlchemy
    numbers = iter(range(voices))

    async def importing() -> None:
        for number in numbers:
            await packages.unpack(data[number] if number < len(data) else package(number, wav))

    started = time.perf_counter()
    await asyncio.gather(*(importing() for _ in range(CLIENTS)))
    rate = voices / (time.perf_counter() - started)

    def page() -> None:
        offset = len(catalogue) // 2
        found = catalogue.voices()[offset : offset + PAGE]
        profiles.Profiles([profiles._profile(voice) for voice in found]).model_dump_json()

    name = f"Voice {voices // 2}"
    figures = {
        "voices": float(voices),
        "imports_per_s": rate,
        "bare_files_per_s": bare_rate,
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
    await again.load()
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = asyncio.run(measure(Path(folder), arguments.voices))
    wanted = {"imports_per_s": "≥ 100", "page_of_100_ms": "≤ 50", "page_after_change_ms": "≤ 50"}
    for name, value in figures.items():
        print(f"{name:22} {value:12.3f}   {wanted.get(name, '')}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
