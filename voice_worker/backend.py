"""What a backend author implements: ``Backend`` for one segment at a time, ``CallbackBackend`` for
the same with an engine that calls back, ``BatchBackend`` for many jobs in one process whose text
may still be arriving.

The author never sees resampling, int16, framing, cancellation, logging or threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32] | npt.NDArray[np.int16]


class BackendError(Exception):
    """Raised by a backend to refuse a load, a voice or a text with a code of its own.

    ``code`` reaches the client unchanged (``out_of_memory``, ``unsupported_language``, …); the
    message is for people and names the remedy. The worker lives on.
    """

    def __init__(self, message: str, *, code: str = "synthesis_failed") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Sample:
    """One reference recording: a mono 24 kHz WAV file, and what is said in it if that is known."""

    path: Path
    transcript: str | None = None


@dataclass(frozen=True)
class Voice:
    """What to sound like: a built-in ``speaker``, or ``samples`` to clone, or a ``design``.

    ``digest`` is the SHA-256 of the samples and transcripts, in hex: the key for a cached prompt.
    ``cache`` is a folder where this backend may keep prepared prompts, as safetensors.
    """

    speaker: str | None = None
    samples: tuple[Sample, ...] = ()
    design: str | None = None
    digest: str = ""
    cache: Path | None = None


@dataclass(frozen=True)
class Speaker:
    """A built-in voice as ``/voices`` lists it. ``language`` is a BCP 47 tag."""

    id: str
    name: str = ""
    language: str = ""
    gender: str = ""


@dataclass(frozen=True)
class BackendInfo:
    """What a loaded backend can do. Sent to the server once, in Ready.

    ``sample_rate``: hertz of the chunks it yields. ``languages``: BCP 47 tags it speaks.
    ``default_speaker``: used when the client names no voice. ``speaker_pattern``: a regular
    expression for speaker ids that are valid without being listed (``en-us+f3``). ``clones``,
    ``designs``, ``instructs``: takes samples, a description, an ``instructions`` parameter.
    ``min_sample_seconds``: a voice's samples must last longer than this together; 0 is any length.
    ``tags``: paralinguistic tags it performs, without brackets (``laugh``). ``dialogue``: where the
    text says ``[name]``, the voice of that name goes on. ``options``: names it
    accepts in ``params``. ``word_timing``: yields words. ``streams_text``: is a BatchBackend that
    takes text while it speaks. ``normalizes``: reads numbers and units itself. ``slots``: jobs it
    runs at once. ``rounds``: a seed's samples are the same but for rounding, because the jobs that
    run beside one change the order of its sums. ``max_chars``: text one job can hold; 0 is no
    limit. ``rtf``: seconds of work for one second of sound, as ``measure_rtf`` says; with None the
    server admits few listeners until the first jobs have told. ``memory_mb`` and ``device`` are
    for ``/ready`` and ``/models``.
    """

    sample_rate: int
    languages: tuple[str, ...] = ("en",)
    speakers: tuple[Speaker, ...] = ()
    default_speaker: str | None = None
    speaker_pattern: str | None = None
    clones: bool = False
    min_sample_seconds: float = 0.0
    designs: bool = False
    instructs: bool = False
    tags: tuple[str, ...] = ()
    dialogue: bool = False
    options: tuple[str, ...] = ()
    word_timing: bool = False
    streams_text: bool = False
    normalizes: bool = True
    slots: int = 1
    rounds: bool = False
    max_chars: int = 0
    rtf: float | None = None
    device: str = "cpu"
    memory_mb: float | None = None


@dataclass(frozen=True)
class Word:
    """Where ``text[start_char:end_char]`` of the job is heard, in seconds from its first sample."""

    start_char: int
    end_char: int
    start: float
    end: float


@dataclass(frozen=True)
class Chunk:
    """Mono samples, float32 in [-1, 1] or int16, and the words whose end is known by now."""

    samples: Samples
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Segment:
    """One job of a Backend: speak ``text`` as ``voice``.

    ``params`` holds the client's ``opts`` that are among ``BackendInfo.options``, and
    ``language`` and ``instructions`` when given. The same seed gives the same samples.
    """

    text: str
    voice: Voice
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


class AnyBackend(ABC):
    """What all backends have. Everything is called from one thread."""

    name: ClassVar[str]

    @abstractmethod
    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        """Load and warm the model. Called once. Raise to refuse; the message reaches the user."""

    def prepare(self, voice: Voice) -> None:  # noqa: B027
        """Make and cache the prompt of ``voice``, so that its first segment costs nothing extra.

        The runtime calls it before the first job of a voice that has samples or a design.
        """


# Takes a chunk and sends it; returns True where the job is cancelled.
Sink = Callable[[Chunk], bool]


class CallbackBackend(AnyBackend):
    """Speaks one segment at a time, with an engine that calls back with its chunks."""

    @abstractmethod
    def speak(self, job: Segment, sink: Sink) -> None:
        """Call ``sink`` with each chunk. Return when the segment is spoken, or soon after ``sink``
        returned True. What ``sink`` raises must come out of here."""

    def rest(self) -> None:
        """The job's end was sent, and nobody waits: time for what the next job must find done."""


class Backend(CallbackBackend):
    """Speaks one segment at a time, with an engine that is asked for its chunks: most are."""

    @abstractmethod
    def synthesize(self, job: Segment) -> Iterator[Chunk | Samples]:
        """Yield chunks at ``info.sample_rate``, the first one as soon as there is one.

        The runtime closes the iterator to cancel: each yield is a point where that can happen.
        """

    def speak(self, job: Segment, sink: Sink) -> None:
        chunks = self.synthesize(job)
        try:
            for chunk in chunks:
                if sink(chunk if isinstance(chunk, Chunk) else Chunk(chunk)):
                    return
        finally:
            if (close := getattr(chunks, "close", None)) is not None:
                close()


@dataclass(frozen=True)
class Turn:
    """One job of a BatchBackend. Its text arrives through ``feed``; ``job`` names it."""

    job: int
    voice: Voice
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """What one step made for one job. ``samples`` may be empty. ``is_finished`` frees its slot.

    ``error`` ends the job (and frees its slot) with that error instead.
    """

    job: int
    samples: Samples
    words: tuple[Word, ...] = ()
    is_finished: bool = False
    error: BackendError | None = None


class BatchBackend(AnyBackend):
    """A model that runs many jobs in one process, one step for all of them.

    ``info.slots`` is how many may be admitted at once.
    """

    @abstractmethod
    def admit(self, job: Turn) -> None:
        """Take a slot for the job; never blocks. Raise BackendError to refuse this job alone."""

    @abstractmethod
    def feed(self, job: int, text: str) -> None:
        """More text of the job, cut anywhere."""

    @abstractmethod
    def finish_text(self, job: int) -> None:
        """The job's text is complete; it finishes by itself when that is spoken."""

    @abstractmethod
    def cancel(self, job: int) -> None:
        """Free the job's slot now; no Step of it follows."""

    def is_runnable(self, job: int) -> bool:
        """False while the job can do nothing until more text arrives. Costs nothing to ask."""
        return True

    @abstractmethod
    def step(self, runnable: Sequence[int]) -> list[Step]:
        """Advance each of these jobs by one frame. They have credit and ``is_runnable``."""

    def counts(self) -> Mapping[str, int]:
        """What /metrics shall count of this model: totals since the load, by name (``retries``).

        Asked at the end of every job.
        """
        return {}
