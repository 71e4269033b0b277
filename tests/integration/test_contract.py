"""The contract: engines that keep it pass, and each way of breaking it is found and named."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.pages import DOCS, blocks
from voice_server.contract.suite import BASIS, END, SPEECH, Outcome, Verdict, run
from voice_server.contract.terms import Plan
from voice_server.workers.process import WorkerSpec

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(segments=12, cancels=6, chars=300)

# A backend that keeps the contract. Each fault below is one replacement in it.
GOOD = """
import os
import random
import sys
import time
import numpy as np
import voice_worker as vw

SAID = []

class Good(vw.Backend):
    name = "good"

    def load(self, options):
        self.prompts = {}
        return vw.BackendInfo(
            sample_rate=24_000, speakers=(vw.Speaker("a"), vw.Speaker("b")), default_speaker="a",
            clones=True, options=("speed",), tags=("laugh",), word_timing=True,
        )

    def prepare(self, voice):
        if voice.samples:
            self.prompts[voice.digest] = len(voice.samples[0].path.read_bytes()) % 1000

    def synthesize(self, job):
        speed = job.params.get("speed", 1.0)
        if type(speed) not in (int, float):
            raise vw.BackendError("speed must be a number", code="bad_option")
        if job.voice.speaker not in (None, "a", "b"):
            raise vw.BackendError("no such speaker", code="unknown_voice")
        chance = random.Random(job.seed)
        level = self.prompts.get(job.voice.digest, 50 * (1 + ord(job.voice.speaker or "a") % 2))
        at = 0
        for n, word in enumerate(job.text.split()):
            start = job.text.index(word, at)
            at = start + len(word)
            chunk = np.full(480, level + chance.randrange(1000), np.int16)
            yield vw.Chunk(chunk, (vw.Word(start, at, n * 0.02, (n + 1) * 0.02),))

if __name__ == "__main__":
    vw.serve(Good())
"""

# What is replaced, by what, the point that must fail, and what it must say.
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "greets as nobody": ("vw.serve(Good())", "pass", "handshake", "exited with code 0"),
    "does not load": (
        "self.prompts = {}",
        "raise vw.BackendError('put the weights into options.model')",
        "handshake",
        "put the weights",
    ),
    "loads for ever": ("self.prompts = {}", "time.sleep(600)", "handshake", "deadline passed"),
    "lists a speaker twice": ('vw.Speaker("b")', 'vw.Speaker("a")', "description", "twice"),
    "has no default": ('default_speaker="a"', 'default_speaker="z"', "description", "'z'"),
    "names a language": ("clones=True", 'clones=True, languages=("English!",)', "description", "!"),
    "writes brackets": ('("laugh",)', '("[laugh]",)', "description", "brackets"),
    "is silent": ("        chance =", "        return\n        chance =", "speech", "no sound"),
    "raises": ("        chance =", "        raise KeyError('x')\n        chance =", "speech", "KeyEr"),
    "forgets the seed": ("random.Random(job.seed)", "random.Random()", "seed", "same seed"),
    "remembers": (
        "        chance = random.Random(job.seed)",
        "        SAID.append(job.text)\n        chance = random.Random(job.seed + len(set(SAID)))",
        "seed",
        "what was said before",
    ),
    "knows no words": ("(vw.Word(start, at, n * 0.02, (n + 1) * 0.02),)", "()", "words", "no word"),
    "words end late": ("(n + 1) * 0.02)", "(n + 1) * 9.0)", "words", "after its sound"),
    "takes any speaker": ('not in (None, "a", "b")', "== 7", "voices", "does not have"),
    "keeps a pickle": (
        "            self.prompts[",
        "            voice.cache and (voice.cache / 'v.pt').write_bytes(b'x')\n"
        "            self.prompts[",
        "cloning",
        "pickle v.pt",
    ),
    "clones nothing": (
        "        if voice.samples:",
        "        if voice.samples:\n            raise ValueError('no')",
        "cloning",
        "no voice of a good recording",
    ),
    "dies of a recording": (
        "        if voice.samples:",
        "        if voice.samples and not voice.samples[0].path.exists():\n            os._exit(3)\n"
        "        if voice.samples:",
        "bad recordings",
        "exited with code 3",
    ),
    "believes its options": (
        "if type(speed) not in (int, float):",
        "if speed is None:",
        "options",
        "said nothing",
    ),
    "chokes on options": (
        "if type(speed) not in (int, float):",
        "if speed < 0:",
        "options",
        "TypeError",
    ),
    "chokes on tags": (
        "        chance =",
        "        if '[laugh]' in job.text:\n            raise KeyError('laugh')\n        chance =",
        "tags",
        "laugh",
    ),
    "chokes on nothing": (
        "        chance =",
        "        job.text.split()[0]\n        chance =",
        "empty text",
        "IndexError",
    ),
    "chokes on scripts": (
        "        chance =",
        "        '今' in job.text and job.text.encode('latin-1')\n        chance =",
        "unicode",
        "UnicodeEncodeError",
    ),
    "dies of a script": (
        "        chance =",
        "        if '今' in job.text:\n            os._exit(9)\n        chance =",
        "unicode",
        "exited with code 9",
    ),
    "is cut short": (
        "        chance =",
        "        if len(job.text) > 250:\n            raise vw.BackendError('too long')\n"
        "        chance =",
        "long text",
        "too long",
    ),
    "goes on when cancelled": (
        "            chunk =",
        "            n == 20 and len(job.text) > 150 and time.sleep(2)\n            chunk =",
        "cancel",
        "was cancelled and went on",
    ),
    "takes stdout back": (
        "class Good",
        "sys.stdout = sys.stderr = open(os.devnull, 'w')\n"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n\nclass Good",
        "noise",
        "lost",
    ),
    "differs by process": ("random.Random(job.seed)", "random.Random(f'{os.getpid()}{job.seed}')", "noise", "another process"),
    "leaks": (
        "        chance =",
        "        SAID.append(job.text[:1] in tuple('YOIG') and os.urandom(8 << 20))\n        chance =",
        "memory",
        "grew by",
    ),
    "does not go": (
        "class Good",
        "os._exit = lambda status: time.sleep(600)\n\nclass Good",
        "end",
        "did not go",
    ),
}  # fmt: skip


# Short only where waiting for it is the fault.
IMPATIENT = {
    "loads for ever": {"load_timeout": 3.0},
    "goes on when cancelled": {"cancel_timeout": 0.5},
    "does not go": {"stop_timeout": 1.0},
}


def verdicts(entry: Path, until: str = "", **times: float) -> dict[str, Verdict]:
    """Of the backend at ``entry``, up to the point ``until``."""
    patience = {"load_timeout": 60.0, "stop_timeout": 30.0, "cancel_timeout": 30.0, **times}
    chunks = {"first_chunk_timeout": 60.0, "gap_timeout": 60.0}
    spec = WorkerSpec(entry.parent.name, Path(sys.executable), entry, **chunks, **patience)

    async def collect() -> dict[str, Verdict]:
        found = {}
        async with aclosing(run(spec, PLAN)) as points:
            async for verdict in points:
                found[verdict.name] = verdict
                if verdict.name == until:
                    break
        return found

    return asyncio.run(collect())


def broken(found: dict[str, Verdict]) -> dict[str, str]:
    return {v.name: v.about for v in found.values() if v.outcome is Outcome.BROKEN}


@pytest.mark.parametrize("name", ["tone", "babble", "espeak"])
def test_the_engines_that_came_first_keep_the_contract(name: str) -> None:
    found = verdicts(ROOT / "backends" / name / "backend.py")
    assert not broken(found)
    assert set(found) == {name for name, _ in (*BASIS, *SPEECH, *END)}


DOCUMENTED = [code for kind, code in blocks(DOCS / "backends.md") if "vw.serve(" in code]


@pytest.mark.parametrize("code", DOCUMENTED, ids=lambda code: code.split(":")[0].strip('"'))
def test_the_backends_that_the_documentation_builds_keep_the_contract(
    tmp_path: Path, code: str
) -> None:
    entry = tmp_path / "backend.py"
    entry.write_text(code, "utf-8")
    assert not broken(verdicts(entry))


def test_a_backend_that_keeps_the_contract_is_told_so(tmp_path: Path) -> None:
    entry = tmp_path / "backend.py"
    entry.write_text(GOOD, "utf-8")
    assert not broken(verdicts(entry))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_way_of_breaking_it_is_found_at_its_own_point(tmp_path: Path, fault: str) -> None:
    old, new, point, says = FAULTS[fault]
    assert GOOD.count(old) == 1
    entry = tmp_path / "backend.py"
    entry.write_text(GOOD.replace(old, new), "utf-8")
    found = verdicts(entry, until=point, **IMPATIENT.get(fault, {}))
    assert list(broken(found)) == [point]
    assert says in found[point].about
    assert found[point].remedy


@pytest.mark.parametrize("rounds", [False, True])
def test_samples_that_depend_on_who_else_speaks_must_be_admitted(
    tmp_path: Path, rounds: bool
) -> None:
    (code,) = (code for code in DOCUMENTED if "class Choir" in code)
    fault = code.replace("(0.2 * np.sin", "(0.02 * len(self.songs) * np.sin")
    fault = fault.replace("slots=8", f"slots=8, rounds={rounds}")
    # Slow enough that they do speak beside each other, on a busy machine too.
    fault = fault.replace("return [self.adv", "__import__('time').sleep(0.004); return [self.adv")
    entry = tmp_path / "backend.py"
    entry.write_text(fault, "utf-8")
    found = verdicts(entry, until="slots")
    assert list(broken(found)) == ([] if rounds else ["slots"])
    assert rounds or "rounds=True" in str(found["slots"].remedy)


def test_one_whose_text_is_fed_has_no_dialogues(tmp_path: Path) -> None:
    (code,) = (code for code in DOCUMENTED if "class Choir" in code)
    entry = tmp_path / "backend.py"
    entry.write_text(code.replace("slots=8", "slots=8, dialogue=True"), "utf-8")
    found = verdicts(entry, until="description")
    assert list(broken(found)) == ["description"]
    assert "dialogues" in found["description"].about


def test_one_that_does_not_load_is_not_asked_for_more(tmp_path: Path) -> None:
    entry = tmp_path / "backend.py"
    entry.write_text("raise SystemExit('no module named torch')", "utf-8")
    found = verdicts(entry)
    assert list(found) == ["handshake"]
    assert "it printed last: no module named torch" in found["handshake"].about


def test_one_that_listens_is_not_asked_to_speak(tmp_path: Path) -> None:
    entry = tmp_path / "backend.py"
    listener = GOOD.replace('options=("speed",)', 'options=("answer",), languages=()')
    entry.write_text(listener, "utf-8")
    found = verdicts(entry)
    assert not broken(found)
    assert set(found) == {"handshake", "description", "end"}
