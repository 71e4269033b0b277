"""A catalogue whose process is killed while it writes.

``python -m tests.chaos.writing KILLS SEED`` is the process that does it: it imports once, and forks
each writer, which would take half a second to start otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.servers import ROOT
from tests.chaos.lines import Reached, count, line
from tests.stored import new, voice
from voice_server.core.errors import Conflict, UnknownVoice
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.voice_files import CLOCK_SLACK, NewSample

WRITERS = 4


@line("SIGKILL while writing", "0 acknowledged rows lost, 0 orphan files, 0 dangling rows")
def kills(scale: float) -> Reached:
    half = str(count(1000, scale, 6) // 2)

    def write(seed: int) -> Counter[str]:
        command = [sys.executable, "-m", "tests.chaos.writing", half, f"{seed}"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return Counter(json.loads(done.stdout.splitlines()[-1]))

    # Two catalogues at a time: most of it is waiting for the disk.
    with ThreadPoolExecutor(2) as threads:
        told = sum(threads.map(write, (1, 2)), Counter())
    figure = (
        f"{told['kills']} kills, {told['changes']} changes acknowledged: {told['lost']} lost, "
        f"{told['orphans']} orphans, {told['dangling']} dangling ({told['swept']} files swept up)"
    )
    return Reached(figure, not (told["lost"] or told["orphans"] or told["dangling"]))


def recording(number: int) -> NewSample:
    """A sample that is like no other; nothing here decodes it."""
    wav = b"%d " % number * 400
    digest, original = hashlib.sha256(wav).hexdigest(), b"as given" * (number % 3)
    sample = new(str(uuid.uuid4()), original=original)
    return dataclasses.replace(sample, wav=wav, sha256=digest)


async def write(folder: Path, acknowledge: int, seed: int) -> None:
    """Make, change and delete voices, several at once, until killed. What is about to be done, and
    what has been, goes down the pipe."""
    chance = random.Random(seed)
    catalogue = Catalogue(folder)
    await catalogue.load()

    def tell(*words: object) -> None:
        os.write(acknowledge, f"{' '.join(map(str, words))}\n".encode())

    async def writer(name: str) -> None:
        for number in range(1_000_000):
            voice_id = f"{name}_{number}"
            tell("samples", (await catalogue.create(voice(voice_id), [recording(number)])).id, 1)
            match chance.randrange(4):
                case 0:
                    tell("going", voice_id)
                    await catalogue.delete(voice_id)
                    tell("gone", voice_id)
                case 1:
                    await catalogue.add_sample(voice_id, recording(number + 1))
                    tell("samples", voice_id, 2)
                case 2:
                    both = [recording(number + 2), recording(number + 3)]
                    tell("samples", (await catalogue.replace(voice(voice_id), both)).id, 2)

    with contextlib.suppress(Conflict, UnknownVoice):
        await asyncio.gather(*(writer(f"v{seed}_{n}") for n in range(WRITERS)))


def killed(folder: Path, seed: int, patience: float) -> list[list[str]]:
    """What a writer acknowledged until it was killed, ``patience`` after its first word."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            asyncio.run(write(folder, writing, seed))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        first = pipe.readline()
        time.sleep(patience)
        os.kill(pid, signal.SIGKILL)
        rest = pipe.read()
    os.waitpid(pid, 0)
    lines = (first + rest).decode().splitlines(keepends=True)
    return [line.split() for line in lines if line.endswith("\n")]


class Ledger:
    """What writers acknowledged: each voice with the samples it must have, and those on their way
    out."""

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}
        self.going: set[str] = set()

    def enter(self, words: list[str]) -> int:
        """1 for a change that is acknowledged."""
        match words:
            case ["samples", voice_id, samples]:
                self.samples[voice_id] = int(samples)
            case ["going", voice_id]:
                self.going.add(voice_id)
                return 0
            case ["gone", voice_id]:
                del self.samples[voice_id]
                self.going.discard(voice_id)
        return 1

    async def check(self, folder: Path) -> tuple[int, int]:
        """Voices that are lost, and samples without their file; begins anew without any voice, so
        that the next look is as quick."""
        catalogue = Catalogue(folder)
        await catalogue.load()
        there = {voice.id: voice for voice in catalogue.voices()}
        lost = sum(
            len(there[voice_id].samples) < samples
            if voice_id in there
            else voice_id not in self.going
            for voice_id, samples in self.samples.items()
        )
        dangling = sum(
            not _is_whole(Path(sample.path), sample.sha256)
            or bool(sample.original and not Path(sample.original).is_file())
            for voice in there.values()
            for sample in voice.samples
        )
        await asyncio.gather(*(catalogue.delete(voice_id) for voice_id in there))
        await catalogue.close()
        self.samples.clear()
        self.going.clear()
        return lost, dangling


async def begin(folder: Path) -> None:
    """Make the tables, and import here what every writer would import."""
    catalogue = Catalogue(folder)
    await catalogue.load()
    await catalogue.database.open()
    await catalogue.close()


async def sweep(folder: Path) -> tuple[int, int]:
    """What the next start removes, and what it leaves though no row names it."""
    before = _files(folder)
    # What is younger than the clock of a file system is exact may be somebody's work.
    await asyncio.sleep(2 * CLOCK_SLACK)
    catalogue = Catalogue(folder)
    await catalogue.create(voice("kept"))  # Where a database has no voice, nothing is removed.
    await catalogue.load(is_owner=True)
    await catalogue.close()
    left = _files(folder)
    return before - left, left


def main(wanted: int, seed: int) -> None:
    chance, ledger = random.Random(seed), Ledger()
    told = {"kills": wanted, "changes": 0, "lost": 0, "dangling": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(begin(folder))
        for number in range(1, wanted + 1):
            for words in killed(folder, number, chance.uniform(0, 0.06)):
                told["changes"] += ledger.enter(words)
            if number % 25 == 0 or number == wanted:
                lost, dangling = asyncio.run(ledger.check(folder))
                told["lost"] += lost
                told["dangling"] += dangling
        told["swept"], told["orphans"] = asyncio.run(sweep(folder))
    print(json.dumps(told))


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "voices").rglob("*"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
