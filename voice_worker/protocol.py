"""The protocol between the server and one worker, without IO: bytes go in, messages come out.

A frame is a 4-byte big-endian length and that many bytes of msgpack. Both ends use the same class
and the same two tables of what is legal, which are in ``legality``.

Errors:

* ProtocolError
    * LocalProtocolError     we were about to send what is not legal; nothing was sent or changed
    * RemoteProtocolError    the peer did; the connection is BROKEN, kill the process behind it
        * VersionMismatch    its Hello names another protocol version
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from dataclasses import dataclass

import msgpack

from voice_worker import messages as m
from voice_worker.legality import (
    CONNECTION,
    FAILED_REQUEST,
    FOLLOWERS,
    JOB,
    OPENERS,
    REPLIES,
    JobState,
    Role,
    State,
    kind_of,
)
from voice_worker.validation import check

__all__ = [
    "MAX_FRAME",
    "Connection",
    "JobState",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "Role",
    "State",
    "VersionMismatch",
]

MAX_FRAME = 1 << 20
_LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """Somebody broke the protocol."""


class LocalProtocolError(ProtocolError):
    """Our own message is not legal now, or malformed. The connection is as it was."""


class RemoteProtocolError(ProtocolError):
    """The peer's bytes are not legal. ``received`` holds the messages before them in that read."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.received: list[m.Message] = []


class VersionMismatch(RemoteProtocolError):
    """The worker's code is of another version than the server's."""


@dataclass(slots=True)
class _Job:
    attempt: int
    state: JobState
    samples: int  # the offset that the next Audio must have
    chars: int
    credit: int | None  # samples in all that may be sent; None is no limit


class Connection:
    """One end of the pipe. Not thread-safe: callers serialise ``send`` and ``receive_data``.

    ``state``: see the table. ``slots``: what Ready said, 0 before it.
    """

    def __init__(self, role: Role, *, max_frame: int = MAX_FRAME) -> None:
        self.role = role
        self.state = State.OPENING
        self.slots = 0
        self._streams_text = False
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._packer = msgpack.Packer(unicode_errors="replace")
        self._jobs: dict[int, _Job] = {}
        self._over: OrderedDict[int, int] = OrderedDict()  # job: its last attempt
        self._requests: set[int] = set()
        self._pings: deque[int] = deque()

    @property
    def jobs(self) -> tuple[int, ...]:
        """The jobs that are not over, in the order they began."""
        return tuple(self._jobs)

    def job_state(self, job: int) -> JobState:
        """The state of a job. One never seen, or forgotten, is OVER: nothing may be said of it."""
        found = self._jobs.get(job)
        return JobState.OVER if found is None else found.state

    def send(self, message: m.Message) -> bytes:
        """Return the bytes to write, and take it that they will be.

        A lone surrogate, which UTF-8 cannot carry, becomes "?", so that positions in a text hold.
        Raises LocalProtocolError when the message is malformed, too large or not legal now.
        """
        try:
            check(message)
            body: bytes = self._packer.pack(m.to_wire(message))
            if len(body) > self._max_frame:
                raise ValueError(f"frame of {len(body)} bytes exceeds {self._max_frame}")
            self._advance(self.role, message)
        except (ValueError, TypeError, OverflowError) as exc:
            self._packer.reset()
            raise LocalProtocolError(str(exc)) from exc
        return _LENGTH.pack(len(body)) + body

    def receive_data(self, data: bytes | bytearray) -> list[m.Message]:
        """Take bytes as they came and return the messages they completed.

        Raises RemoteProtocolError; what was received before the mistake is in its ``received``.
        """
        if self.state is State.BROKEN:
            raise RemoteProtocolError("the connection is broken")
        if self._buffer:
            self._buffer += data
            data = self._buffer
        received: list[m.Message] = []
        start, held = 0, len(data)
        try:
            with memoryview(data) as view:
                while held - start >= 4:
                    (length,) = _LENGTH.unpack_from(view, start)
                    if length > self._max_frame:
                        # Before a byte of the body is awaited: a stray print() must not make us
                        # wait.
                        raise RemoteProtocolError(
                            f"frame of {length} bytes exceeds {self._max_frame}"
                        )
                    if held - start - 4 < length:
                        break
                    received.append(self._decode(view[start + 4 : start + 4 + length]))
                    start += 4 + length
        except RemoteProtocolError as exc:
            self.state = State.BROKEN
            exc.received = received
            raise
        if data is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += data[start:]
        return received

    def receive_eof(self) -> None:
        """Tell the connection that the peer's bytes have ended.

        Raises RemoteProtocolError unless that is legal: CLOSING, no job left, no half frame.
        """
        was, self.state = self.state, State.BROKEN
        if self._buffer:
            raise RemoteProtocolError(f"it ended inside a frame ({len(self._buffer)} bytes held)")
        if was is not State.CLOSING:
            raise RemoteProtocolError(f"it ended while {was.value}")
        if self._jobs:
            raise RemoteProtocolError(f"it ended with {len(self._jobs)} jobs unfinished")

    def _decode(self, body: memoryview) -> m.Message:
        try:
            message = m.from_wire(msgpack.unpackb(body, ext_hook=_refuse_extension))
            check(message)
            if type(message) is m.Hello and message.protocol != m.PROTOCOL_VERSION:
                raise VersionMismatch(
                    f"{message.backend} speaks worker protocol {message.protocol}, this server"
                    f" {m.PROTOCOL_VERSION}: run `cli.py backends install {message.backend}`"
                )
            self._advance(Role.WORKER if self.role is Role.SERVER else Role.SERVER, message)
        except RemoteProtocolError:
            raise
        except Exception as exc:
            # msgpack has half a dozen ways of saying that bytes are nonsense; all end the same.
            raise RemoteProtocolError(str(exc) or type(exc).__name__) from exc
        return message

    def _advance(self, sender: Role, message: m.Message) -> None:
        """Make the message part of the history. Raises ValueError, and then changes nothing."""
        kind = kind_of(message)
        after = CONNECTION[self.state].get((sender, kind))
        if after is None:
            raise ValueError(f"{sender.value} may not send {kind} while {self.state.value}")
        if kind in _ABOUT_JOBS:
            self._advance_job(sender, kind, message)
        elif kind in _SIDE:
            self._advance_side(kind, message)
        elif kind == "Ready":
            assert isinstance(message, m.Ready)
            if self.slots:
                raise ValueError("worker sent Ready twice")
            self.slots = message.info["slots"]
            self._streams_text = message.info["streams_text"]
        self.state = after

    def _advance_side(self, kind: str, message: m.Message) -> None:
        match message:
            case m.Ping():
                self._pings.append(message.nonce)
            case m.Pong():
                if not self._pings or self._pings[0] != message.nonce:
                    raise ValueError(f"Pong {message.nonce} answers no Ping")
                self._pings.popleft()
            case m.Prepare():
                if message.request in self._requests:
                    raise ValueError(f"request {message.request} is not answered yet")
                self._requests.add(message.request)
            case m.Prepared() | m.Failed():
                if message.request not in self._requests:
                    raise ValueError(f"{kind} answers no request ({message.request})")
                self._requests.remove(message.request)

    def _advance_job(self, sender: Role, kind: str, message: m.Message) -> None:
        if kind in OPENERS:
            self._begin(message)  # type: ignore[arg-type]
            return
        number: int = message.job  # type: ignore[attr-defined]
        job = self._jobs.get(number)
        if job is None:
            is_crossing = sender is not self.role and number in self._over
            if not is_crossing or (sender, kind) not in JOB[JobState.OVER]:
                raise ValueError(f"{kind} about job {number}, which is over or was never begun")
            return
        after = JOB[job.state].get((sender, kind))
        if after is None:
            raise ValueError(
                f"{sender.value} may not send {kind} while job {number} is {job.state.value}"
            )
        if sender is Role.WORKER and message.attempt != job.attempt:  # type: ignore[attr-defined]
            raise ValueError(f"{kind} of another attempt at job {number}")
        match message:
            case m.Audio():
                _advance_audio(job, message)
            case m.Words():
                if any(word[1] > job.chars for word in message.words):
                    raise ValueError(f"Words end beyond the text of job {number}")
            case m.Text():
                job.chars += len(message.text)
            case m.Credit():
                _advance_credit(job, message)
            case m.Done():
                if message.samples != job.samples:
                    raise ValueError(f"Done counts {message.samples} samples, not {job.samples}")
                if message.cancelled and job.state is not JobState.CANCELLING:
                    raise ValueError(f"job {number} ended as cancelled, but nobody cancelled it")
        job.state = after
        if after is JobState.OVER:
            self._forget(number, job)

    def _begin(self, message: m.Synthesize | m.Open) -> None:
        number = message.job
        if number in self._jobs or self._over.get(number, -1) >= message.attempt:
            raise ValueError(f"attempt {message.attempt} at job {number} was begun before")
        if len(self._jobs) >= self.slots:
            raise ValueError(f"job {number} is one more than the {self.slots} slots")
        is_open = isinstance(message, m.Open)
        if is_open and not self._streams_text:
            raise ValueError("Open is for backends that stream text; use Synthesize")
        self._jobs[number] = _Job(
            attempt=message.attempt,
            state=JobState.OPEN if is_open else JobState.ENDED,
            samples=message.resume["samples"] if message.resume else 0,
            chars=0 if isinstance(message, m.Open) else len(message.text),
            credit=None if self.slots == 1 else 0,
        )

    def _forget(self, number: int, job: _Job) -> None:
        del self._jobs[number]
        self._over[number] = job.attempt
        self._over.move_to_end(number)
        # What the server said before it learnt that a job is over can only concern jobs that it
        # held in slots at the same time, so a few rounds of slots are memory enough.
        while len(self._over) > 4 * self.slots + 64:
            self._over.popitem(last=False)


def _advance_audio(job: _Job, message: m.Audio) -> None:
    if message.offset != job.samples:
        raise ValueError(
            f"Audio of job {message.job} at sample {message.offset}, expected {job.samples}"
        )
    after = job.samples + len(message.pcm) // 2
    if job.credit is not None and after > job.credit:
        raise ValueError(f"Audio of job {message.job} beyond its credit of {job.credit} samples")
    job.samples = after


def _advance_credit(job: _Job, message: m.Credit) -> None:
    limit = None if message.samples < 0 else message.samples
    if job.credit is None or (limit is not None and limit < job.credit):
        if limit == job.credit:
            return
        raise ValueError(f"credit of job {message.job} may only grow")
    job.credit = limit


def _refuse_extension(code: int, _data: bytes) -> object:
    raise ValueError(f"msgpack extension type {code}")


_ABOUT_JOBS = frozenset({*OPENERS, *FOLLOWERS, *REPLIES})
_SIDE = frozenset({"Ping", "Pong", "Prepare", "Prepared", FAILED_REQUEST})
