"""Chaos: misbehaves when its text says so, so that tests can watch the server survive it."""

import os
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import misdeeds
import numpy as np

from voice_worker import Backend, BackendError, BackendInfo, Chunk, Segment, Speaker, Word, serve

print("library banner on stdout")


class Chaos(Backend):
    name = "chaos"

    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        time.sleep(float(options.get("load_seconds", 0.0)))
        if options.get("load_exit"):
            os._exit(int(options["load_exit"]))
        if code := options.get("refuse"):
            why = "no GPU here"
            raise RuntimeError(why) if code is True else BackendError(why, code=code)
        self.seconds = float(options.get("seconds_per_word", 0.01))
        self.rate = int(options.get("sample_rate", 24_000))
        self.state_dir = Path(options["state_dir"]) if "state_dir" in options else None
        return BackendInfo(
            sample_rate=self.rate,
            speakers=(Speaker("calm"), Speaker("wild")),
            default_speaker="calm",
            word_timing=bool(options.get("word_timing", True)),
        )

    def synthesize(self, job: Segment) -> Iterator[Chunk]:
        for count, found in enumerate(re.finditer(r"\S+", job.text)):
            word = re.sub(r"\W", "", found[0]).lower()
            self.obey(word, job)
            # A level of its own for each word, so that order and loss show in the bytes.
            level = 1 + zlib.crc32(found[0].encode()) % 30_000
            if word == "random":
                level = int.from_bytes(os.urandom(2), "big") % 30_000
            samples = np.full(round(self.seconds * self.rate), level, dtype=np.int16)
            start = count * len(samples) / self.rate
            end = (count + 1) * len(samples) / self.rate
            yield Chunk(samples, (Word(found.start(), found.end(), start, end),))

    def obey(self, word: str, job: Segment) -> None:
        if word.endswith("once"):
            word = word.removesuffix("once")
            if word in misdeeds.ALL and not self.is_first_time(word, job):
                return
        if (misdeed := misdeeds.ALL.get(word)) is not None:
            misdeed()

    def is_first_time(self, word: str, job: Segment) -> bool:
        """True for one worker, whichever comes first; remembered in files across processes."""
        if self.state_dir is None:
            raise BackendError("the words that end in 'once' need the option state_dir")
        try:
            (self.state_dir / f"{word}-{zlib.crc32(job.text.encode()):08x}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


if __name__ == "__main__":
    if "--help" in sys.argv:
        sys.exit("words: " + " ".join(misdeeds.ALL))
    serve(Chaos())
