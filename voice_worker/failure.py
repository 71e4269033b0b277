"""What an exception of a backend becomes: a Failed message, or the end of the process."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from voice_worker.backend import BackendError

MAX_ERROR = 1000
MAX_DETAIL = 8000


class ResumeMismatch(BackendError):
    """The samples made again are not those that were delivered before."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="resume_mismatch")


@dataclass(frozen=True)
class Failure:
    """``code``, ``error`` and ``detail`` of a Failed message."""

    code: str
    error: str
    detail: str


def describe(exc: BaseException) -> Failure:
    """Name what went wrong. ``detail`` is the end of the traceback."""
    detail = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))[-MAX_DETAIL:]
    if isinstance(exc, BackendError):
        return Failure(str(exc.code) or "synthesis_failed", str(exc)[:MAX_ERROR], detail)
    error = f"{type(exc).__name__}: {exc}"[:MAX_ERROR]
    if is_out_of_memory(exc):
        return Failure("out_of_memory", error, detail)
    if isinstance(exc, SystemExit):
        error = f"the model's code asked the process to exit ({exc.code!r:.200})"
    return Failure("synthesis_failed", error, detail)


def is_out_of_memory(exc: BaseException) -> bool:
    # By name and words: torch's class is not known here, and must not be imported to be asked.
    if isinstance(exc, MemoryError) or any(
        cls.__name__ == "OutOfMemoryError" for cls in type(exc).__mro__
    ):
        return True
    said = str(exc) if isinstance(exc, RuntimeError) else ""
    return "out of memory" in said or "can't allocate memory" in said


def is_device_lost(exc: BaseException) -> bool:
    """An accelerator error after which every further call fails: only a new process helps."""
    if is_out_of_memory(exc):
        return False
    is_accelerator = any(cls.__name__ == "AcceleratorError" for cls in type(exc).__mro__)
    return is_accelerator or (isinstance(exc, RuntimeError) and "CUDA error" in str(exc))


def reason_of(exc: Exception) -> str:
    """What an error of reading a file says, but for its path, which is no client's affair."""
    # OSError and soundfile's LibsndfileError keep the two apart.
    return str(getattr(exc, "strerror", None) or getattr(exc, "error_string", None) or exc)
