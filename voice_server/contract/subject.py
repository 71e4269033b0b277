"""The backend under test: one worker of it on a real pipe, spoken to as the server does.

Subject.start ─Hello, Ready→ speak, prepare … ─→ Subject.stop
                    any death, fault or deadline is a Breach; the next start makes a new worker
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from voice_server.contract import noisy
from voice_server.contract.terms import Breach, Plan
from voice_server.core.errors import WorkerStartError
from voice_server.workers.job import SAMPLE_RATE, UNLIMITED, text_messages
from voice_server.workers.process import Exit, WorkerProcess, WorkerSpec
from voice_worker import messages as m
from voice_worker.backend import BackendInfo, Sample, Voice
from voice_worker.wire import info_from_map, voice_to_map

SEED: Final = 7
DESIGN: Final = "A calm, low voice of an old sailor."
LINES_SHOWN: Final = 3  # of what a worker printed before it died


@dataclass
class Speech:
    """What came of one job: ``pcm`` is int16, mono, 24 kHz. All times in seconds.

    ``first``: from the job to its first sound, None where there was none. ``longest_gap``: between
    two pieces of sound. ``ends``: after how many samples each message of sound ended.
    ``stopped_after``: from the Cancel to the end of the job.
    """

    pcm: bytes = b""
    words: list[list[int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    first: float | None = None
    took: float = 0.0
    longest_gap: float = 0.0
    stopped_after: float | None = None
    was_cancelled: bool = False
    refusal: m.Failed | None = None

    @property
    def samples(self) -> int:
        return len(self.pcm) // 2

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def take(self, message: m.Message, began: float, last: float) -> None:
        now = time.perf_counter()
        match message:
            case m.Audio():
                self.pcm += message.pcm
                self.ends.append(message.offset + len(message.pcm) // 2)
                if self.first is None:
                    self.first = now - began
                else:
                    self.longest_gap = max(self.longest_gap, now - last)
            case m.Words():
                self.words += message.words
            case m.Done():
                self.took = now - began
                self.was_cancelled = message.cancelled
            case m.Failed():
                self.took = now - began
                self.refusal = message


class Subject:
    """``info`` is what its Ready said, after ``start``. Every method raises Breach."""

    def __init__(self, spec: WorkerSpec, plan: Plan) -> None:
        self.spec = spec
        self.plan = plan
        self.info = BackendInfo(sample_rate=SAMPLE_RATE)
        self.hello: m.Hello | None = None
        self.load_seconds = 0.0
        self.exit: Exit | None = None
        self._process: WorkerProcess | None = None
        self._inboxes: dict[tuple[str, int], asyncio.Queue[m.Message | Breach]] = {}
        self._counter = 0
        self._reason = ""

    def noisy(self) -> Subject:
        """The same backend, while its process prints all it can."""
        env = {**self.spec.env, "CONTRACT_ENTRY": str(self.spec.entry)}
        return Subject(replace(self.spec, entry=Path(noisy.__file__), env=env), self.plan)

    @property
    def transcribes(self) -> bool:
        """It writes down what is said, and does not speak."""
        return "answer" in self.info.options

    @property
    def resident_mb(self) -> float:
        return (self._process and self._process.resident_mb()) or 0.0

    def forget_printed(self) -> None:
        """What it has printed so far is none of ``prints``'s business."""
        if self._process is not None:
            self._process.stderr.tail.clear()

    async def prints(self, text: str, patience: float = 5.0) -> bool:
        """Whether it prints the text, now or within ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.exit is None:
            if any(text in line for line in self._printed):
                return True
            await asyncio.sleep(0.01)
        return False

    @property
    def _printed(self) -> list[str]:
        return list(self._process.stderr.tail) if self._process else []

    async def start(self) -> None:
        """Have a loaded worker; one that lives is kept."""
        if self._process is not None and self.exit is None:
            return
        began = time.perf_counter()
        self.exit, self._reason = None, ""
        self._inboxes = {("life", 0): asyncio.Queue()}
        try:
            self._process = WorkerProcess(self.spec, self._receive, self._fault, self._exited)
        except WorkerStartError as exc:
            raise Breach(str(exc), "install it again, or mend `python:` in backends.yaml") from None
        slow = "load_timeout in backends.yaml covers its imports and its load(): raise it"
        left = self.spec.load_timeout
        hello = await self._next(("life", 0), left, "did not greet", slow)
        if not isinstance(hello, m.Hello):
            raise Breach(f"began with {hello.type}", "call voice_worker.serve and nothing else")
        self.hello = hello
        self._process.send(m.Load(dict(self.spec.options)))
        left -= time.perf_counter() - began
        ready = await self._next(("life", 0), left, "was not ready", slow)
        if isinstance(ready, m.Failed):
            raise Breach(
                f"could not load: {ready.error}",
                "give it what its message names, under options: in backends.yaml or by --option",
            )
        assert isinstance(ready, m.Ready)
        try:
            self.info = info_from_map(ready.info)
        except ValueError as exc:
            raise Breach(f"sent a Ready that makes no sense: {exc}", "mend BackendInfo") from None
        self.load_seconds = time.perf_counter() - began

    async def stop(self) -> Exit:
        """Ask it to go, and wait for its end. Raises Breach when it stays."""
        assert self._process is not None
        if self.exit is None:
            self._process.send(m.Shutdown())
            remedy = "a thread or a child holds it: end them, or raise stop_timeout"
            end = await self._wait_for_exit(self.spec.stop_timeout)
            if end is None:
                raise Breach(f"did not go within {self.spec.stop_timeout:g} s of Shutdown", remedy)
        assert self.exit is not None
        return self.exit

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self.exit is None:
            self._process.kill()
            await self._wait_for_exit(30.0)

    async def speak(
        self,
        text: str,
        *,
        voice: Voice | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int = SEED,
        pieces: Sequence[str] | None = None,
        resume: dict[str, int] | None = None,
        cancel_at: int | None = None,
        credit: int = UNLIMITED,
    ) -> Speech:
        """One job, to its end. ``pieces``: the text as it arrives, for those who stream it.

        ``cancel_at``: cancel when so many pieces of sound have come, 0 at once. ``credit``: samples
        that a worker with several slots may send; more is never given.
        """
        assert self._process is not None
        self._counter += 1
        number = self._counter
        inbox = self._inboxes[("job", number)] = asyncio.Queue()
        given = {**self.plan.params, **(params or {})}
        told = voice_to_map(voice or self.default_voice)
        messages: list[m.Message] = []
        if self.info.streams_text:
            messages.append(m.Open(number, 1, told, given, seed, resume))
            for piece in pieces if pieces is not None else [text]:
                messages += text_messages(number, piece)
            messages.append(m.EndText(number))
        else:
            messages.append(m.Synthesize(number, 1, text, told, given, seed, resume))
        if self.info.slots > 1 and credit:
            messages.insert(1, m.Credit(number, credit))
        try:
            self._process.send(*messages)
            return await self._hear(inbox, number, cancel_at)
        finally:
            self._inboxes.pop(("job", number), None)

    async def spoken(self, text: str, **more: Any) -> Speech:
        """``speak``, for a text that may not be refused."""
        speech = await self.speak(text, **more)
        if speech.refusal is not None:
            raise Breach(
                f"refused {text!r:.60}: {speech.refusal.error}",
                "speak it, or find out by running the worker's text through the model alone",
            )
        return speech

    async def prepare(self, voice: Voice) -> m.Prepared | m.Failed:
        """Have a prompt made; a refusal is returned."""
        assert self._process is not None
        self._counter += 1
        key = ("request", self._counter)
        self._inboxes[key] = asyncio.Queue()
        self._process.send(m.Prepare(self._counter, voice_to_map(voice)))
        limit = self.spec.prepare_timeout
        answer = await self._next(key, limit, "made no prompt", "make prepare() quicker")
        assert isinstance(answer, m.Prepared | m.Failed)
        return answer

    def cloned(self, cache: Path | None = None) -> Voice:
        """The voice of the recording."""
        path, transcript = self.plan.recording, self.plan.transcript
        assert path is not None
        # With a cache it is a voice of its own: of one it knows already an engine keeps nothing.
        digest = _digest(f"{path} {cache or ''}")
        return Voice(samples=(Sample(path, transcript),), digest=digest, cache=cache)

    def designed(self) -> Voice:
        """The voice of a description."""
        return Voice(design=DESIGN, digest=_digest(DESIGN))

    @property
    def default_voice(self) -> Voice:
        """What it speaks as when nobody is named: a model without voices is given one."""
        speaker = self.plan.voice or self.info.default_speaker
        if speaker is None and not self.info.speakers:
            if self.info.clones:
                return self.cloned()
            if self.info.designs:
                return self.designed()
        return Voice(speaker=speaker)

    # -- inside ---------------------------------------------------------------------------------

    async def _hear(
        self, inbox: asyncio.Queue[m.Message | Breach], number: int, cancel_at: int | None
    ) -> Speech:
        speech = Speech()
        began = last = time.perf_counter()
        cancelled: float | None = None
        while True:
            if cancel_at is not None and cancelled is None and len(speech.ends) >= cancel_at:
                assert self._process is not None
                if self._process.is_open(number):
                    cancelled = time.perf_counter()
                    self._process.send(m.Cancel(number))
            if cancelled is not None:
                limit = self.spec.cancel_timeout - (time.perf_counter() - cancelled)
                late = f"was cancelled and went on for {self.spec.cancel_timeout:g} s"
                remedy = "yield more often: a job can be cancelled at a yield and nowhere else"
            elif speech.ends:
                limit, late = self.spec.gap_timeout, "stopped in the middle of a text"
                remedy = "yield more often, or raise gap_timeout in backends.yaml"
            else:
                limit, late = self.spec.first_chunk_timeout, "made no sound"
                remedy = "yield the first chunk sooner, or raise first_chunk_timeout"
            message = await self._next(("job", number), limit, late, remedy)
            speech.take(message, began, last)
            last = time.perf_counter()
            if isinstance(message, m.Done | m.Failed):
                if cancelled is not None:
                    speech.stopped_after = last - cancelled
                return speech

    async def _next(self, key: tuple[str, int], limit: float, late: str, remedy: str) -> m.Message:
        try:
            async with asyncio.timeout(max(limit, 0.0)):
                found = await self._inboxes[key].get()
        except TimeoutError:
            await self.kill()
            raise Breach(f"{late} (deadline passed){self._last_words()}", remedy) from None
        if isinstance(found, Breach):
            raise found
        return found

    async def _wait_for_exit(self, limit: float) -> Exit | None:
        deadline = time.monotonic() + limit
        while self.exit is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.exit

    def _receive(self, messages: Sequence[m.Message]) -> None:
        for message in messages:
            if (job := getattr(message, "job", None)) is not None:
                key = ("job", job)
            elif (request := getattr(message, "request", None)) is not None:
                key = ("request", request)
            else:
                key = ("life", 0)
            if (inbox := self._inboxes.get(key)) is not None:
                inbox.put_nowait(message)

    def _fault(self, what: str) -> None:
        self._reason = what
        assert self._process is not None
        self._process.mute()
        self._process.kill()

    def _exited(self, exit: Exit) -> None:
        self.exit = exit
        what = f"the worker {self._reason or exit}{self._last_words()}"
        remedy = "let exceptions out of the backend: the runtime makes errors of them"
        for inbox in self._inboxes.values():
            inbox.put_nowait(Breach(what, remedy))

    def _last_words(self) -> str:
        lines = [line for line in self._printed if line.strip()][-LINES_SHOWN:]
        return f"; it printed last: {' | '.join(lines)}" if lines else ""


def _digest(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()
