"""The contract, check by check, against one backend."""

from __future__ import annotations

import enum
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from voice_server.contract import asking, enduring, speaking
from voice_server.contract.recording import TRANSCRIPT, write_recording
from voice_server.contract.subject import Subject
from voice_server.contract.terms import Breach, NotApplicable, Plan
from voice_server.workers.process import WorkerSpec

Check = Callable[[Subject], Awaitable[str]]


class Outcome(enum.Enum):
    KEPT = "ok"
    BROKEN = "FAILS"
    SKIPPED = "–"


@dataclass(frozen=True)
class Verdict:
    """``about``: what was seen, what is wrong, or why it does not apply. ``remedy`` if broken."""

    name: str
    outcome: Outcome
    about: str
    remedy: str = ""
    seconds: float = 0.0


# In this order: each may rely on what those before it have shown.
BASIS: tuple[tuple[str, Check], ...] = (
    ("handshake", speaking.greets_and_loads),
    ("description", speaking.describes_itself),
)
SPEECH: tuple[tuple[str, Check], ...] = (
    ("speech", speaking.speaks),
    ("seed", speaking.repeats_itself),
    ("resume", speaking.resumes),
    ("words", speaking.times_its_words),
    ("text in pieces", speaking.takes_text_in_pieces),
    ("slots", speaking.speaks_in_every_slot),
    ("voices", asking.speaks_with_its_voices),
    ("cloning", asking.clones),
    ("bad recordings", asking.survives_bad_recordings),
    ("design", asking.designs),
    ("options", asking.checks_its_options),
    ("tags", asking.performs_its_tags),
    ("empty text", asking.speaks_of_nothing),
    ("unicode", asking.speaks_unicode),
    ("long text", asking.speaks_at_length),
    ("cancel", enduring.stops_when_cancelled),
    ("noise", enduring.survives_noise),
    ("memory", enduring.keeps_its_memory),
)
END: tuple[tuple[str, Check], ...] = (("end", enduring.goes_when_asked),)


async def run(spec: WorkerSpec, plan: Plan) -> AsyncGenerator[Verdict, None]:
    """Check everything, one verdict at a time. A backend that does not load is not checked on."""
    with tempfile.TemporaryDirectory() as folder:
        if plan.recording is None:
            recording = Path(folder, "recording.wav")
            write_recording(recording)
            plan = replace(plan, recording=recording, transcript=TRANSCRIPT)
        async with aclosing(_run(Subject(spec, plan))) as verdicts:
            async for verdict in verdicts:
                yield verdict


async def _run(subject: Subject) -> AsyncGenerator[Verdict, None]:
    try:
        for name, check in BASIS:
            yield await _judge(name, check, subject)
            if subject.hello is None or subject.load_seconds == 0.0:
                return
        # One that only listens has nothing to say.
        for name, check in END if subject.transcribes else (*SPEECH, *END):
            yield await _judge(name, check, subject)
    finally:
        await subject.kill()


async def _judge(name: str, check: Check, subject: Subject) -> Verdict:
    began = perf_counter()
    outcome, remedy = Outcome.KEPT, ""
    try:
        await subject.start()
        about = await check(subject)
    except Breach as breach:
        outcome, about, remedy = Outcome.BROKEN, str(breach), breach.remedy
    except NotApplicable as reason:
        outcome, about = Outcome.SKIPPED, str(reason)
    return Verdict(name, outcome, about, remedy, perf_counter() - began)
