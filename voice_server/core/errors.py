"""Every error Voice Server raises on purpose. Messages are for people and name the remedy.

* VoiceServerError
    * RequestError              the client can fix it          4xx, ``retryable = False``
        * UnknownVoice, UnknownBackend, UnknownOption, UnsupportedFormat
        * InvalidRequest        a field of it is not what it must be
        * ProtocolMistake       the message is fine, but not now
        * TooLarge              a limit was passed
        * Unauthorized, Forbidden, NotFound, Conflict
    * BusyError                 ask again later                503, ``retryable = True``
        * RateLimited           this key asks too often        429
        * NotReady              no worker is warm yet
        * Draining              the server is going away
        * TunnelDown            the relay has no connection to the box
    * WorkerError               a worker let us down           502
        * WorkerStartError      it never became ready
        * WorkerDied            it went away, or broke the protocol
        * WorkerTimeout         it made no progress by its deadline
        * SynthesisFailed       it is well, but could not speak this text
        * PoisonText            this text killed two workers
    * ResumeFailed              the turn cannot be continued   410
    * TunnelTimeout             the box did not answer in time 504
    * StorageFull               the disk is full               507
    * ConfigError               a setting is wrong; the server does not start
    * BackendNotInstalled       its venv is missing or broken  503
"""

from __future__ import annotations

from typing import Final

UNEXPECTED: Final = "something went wrong in the server; its log says what"
"""All that a client is told of a fault of ours."""


class VoiceServerError(Exception):
    """Base class. ``code`` is part of the public protocol; the message is for people.

    ``status`` is the HTTP status, ``close_code`` the WebSocket close code where it ends a socket,
    ``retry_after`` seconds after which asking again makes sense. ``delivered_samples`` is how much
    of a segment was delivered before it failed, where it is a segment that failed.
    """

    code = "internal_error"
    status = 500
    close_code = 1011
    retryable = False
    retry_after: float | None = None
    delivered_samples: int | None = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class RequestError(VoiceServerError):
    code = "bad_request"
    status = 400
    close_code = 1008


class UnknownVoice(RequestError):
    code = "unknown_voice"
    status = 404


class UnknownBackend(RequestError):
    code = "unknown_backend"
    status = 404


class UnknownOption(RequestError):
    code = "unknown_option"


class UnsupportedFormat(RequestError):
    code = "unsupported_format"


class InvalidRequest(RequestError):
    code = "invalid_request"
    status = 422


class ProtocolMistake(RequestError):
    code = "protocol_mistake"


class TooLarge(RequestError):
    code = "too_large"
    status = 413
    close_code = 1009


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    code = "forbidden"
    status = 403


class NotFound(RequestError):
    code = "not_found"
    status = 404


class Conflict(RequestError):
    code = "conflict"
    status = 409


class BusyError(VoiceServerError):
    code = "busy"
    status = 503
    close_code = 1013
    retryable = True
    retry_after = 1.0


class RateLimited(BusyError):
    code = "rate_limited"
    status = 429
    close_code = 1008


class NotReady(BusyError):
    code = "not_ready"


class Draining(BusyError):
    code = "draining"


class TunnelDown(BusyError):
    code = "tunnel_down"
    retry_after = 2.0


class WorkerError(VoiceServerError):
    code = "worker_error"
    status = 502


class WorkerStartError(WorkerError):
    code = "worker_start_failed"


class WorkerDied(WorkerError):
    code = "worker_died"
    retryable = True


class WorkerTimeout(WorkerDied):
    code = "worker_timeout"


class SynthesisFailed(WorkerError):
    code = "synthesis_failed"


class PoisonText(WorkerError):
    code = "poison_text"


class ResumeFailed(VoiceServerError):
    code = "resume_failed"
    status = 410
    close_code = 1008


class TunnelTimeout(VoiceServerError):
    code = "tunnel_timeout"
    status = 504
    close_code = 1013
    retryable = True


class StorageFull(VoiceServerError):
    code = "storage_full"
    status = 507


class ConfigError(VoiceServerError):
    code = "config_error"


class BackendNotInstalled(VoiceServerError):
    code = "backend_not_installed"
    status = 503
