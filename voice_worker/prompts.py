"""Which voices a backend has prepared in this process."""

from __future__ import annotations

import os
import sys
import traceback

from voice_worker import messages as m
from voice_worker.backend import AnyBackend, Voice
from voice_worker.failure import describe, is_device_lost
from voice_worker.pipe import Pipe
from voice_worker.wire import voice_from_map

EXIT_DEVICE_LOST = 75  # EX_TEMPFAIL of sysexits.h


class Prompts:
    def __init__(self, backend: AnyBackend, pipe: Pipe) -> None:
        self._backend, self._pipe = backend, pipe
        self._ready: set[tuple[str, str | None]] = set()

    def ensure(self, voice: Voice) -> None:
        """Prepare the voice unless that was done, or there is nothing to prepare."""
        key = (voice.digest, voice.design)
        if (voice.samples or voice.design) and key not in self._ready:
            self._backend.prepare(voice)
            self._ready.add(key)

    def answer(self, message: m.Prepare) -> None:
        try:
            self.ensure(voice_from_map(message.voice))
        except BaseException as exc:
            self.leave_if_lost(exc)
            failure = describe(exc)
            self._pipe.send(
                m.Failed(
                    error=failure.error,
                    request=message.request,
                    code=failure.code,
                    detail=failure.detail,
                )
            )
        else:
            self._pipe.send(m.Prepared(message.request))

    def leave_if_lost(self, exc: BaseException) -> None:
        """End the process when its device is of no further use; its jobs resume on another."""
        if is_device_lost(exc):
            traceback.print_exception(type(exc), exc, exc.__traceback__)
            sys.stderr.flush()
            os._exit(EXIT_DEVICE_LOST)
