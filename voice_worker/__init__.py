"""The only code a backend imports. Standard library, msgpack and numpy; nothing else, ever."""

from voice_worker.backend import (
    Backend,
    BackendError,
    BackendInfo,
    BatchBackend,
    CallbackBackend,
    Chunk,
    Sample,
    Segment,
    Sink,
    Speaker,
    Step,
    Turn,
    Voice,
    Word,
)
from voice_worker.runtime import serve
from voice_worker.trial import measure_rtf

__all__ = [
    "Backend",
    "BackendError",
    "BackendInfo",
    "BatchBackend",
    "CallbackBackend",
    "Chunk",
    "Sample",
    "Segment",
    "Sink",
    "Speaker",
    "Step",
    "Turn",
    "Voice",
    "Word",
    "measure_rtf",
    "serve",
]
