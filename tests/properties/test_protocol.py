"""The worker protocol as properties: cuts do not matter, bytes are messages or a documented error,
and whatever one end may send, the other accepts, however late it arrives.
"""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from voice_worker import messages as m
from voice_worker.legality import CONNECTION, JOB, JobState, Role, State
from voice_worker.protocol import Connection, ProtocolError, RemoteProtocolError

SLOTS = 3
INFO = {"sample_rate": 24_000, "slots": SLOTS, "streams_text": True}


ONE_SLOT = {"sample_rate": 24_000, "slots": 1, "streams_text": False}
ANSWERS: list[m.Message] = [
    m.Words(1, 1, [[0, 2, 0, 3]]),
    m.Audio(1, 1, 0, b"abcd"),
    m.Pong(4),
    m.Audio(1, 1, 2, b"ef"),
    m.Done(1, 1, 3, timing={"total": 0.25}, counts={"retries": 2}),
]


def asked() -> tuple[Connection, Connection]:
    """A server's end that asked for what ANSWERS are the answers to, and the worker's."""
    server, worker = Connection(Role.SERVER), Connection(Role.WORKER)
    server.receive_data(worker.send(m.Hello("tone", "3.11", 1)))
    worker.receive_data(server.send(m.Load()))
    server.receive_data(worker.send(m.Ready(ONE_SLOT)))
    worker.receive_data(server.send(m.Synthesize(1, 1, "hi", {})) + server.send(m.Ping(4)))
    return server, worker


def frames() -> list[bytes]:
    _, worker = asked()
    return [worker.send(message) for message in ANSWERS]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, start = [], 0
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    return [*parts, data[start:]]


def receive(server: Connection, parts: list[bytes]) -> tuple[list[m.Message], str]:
    """What a server made of the parts, and the error it ended with, if any."""
    received: list[m.Message] = []
    try:
        for part in parts:
            received += server.receive_data(part)
    except RemoteProtocolError as exc:
        return received + exc.received, str(exc)
    return received, ""


@given(st.lists(st.integers(0, 60)))
def test_messages_do_not_depend_on_how_the_pipe_cuts_them(sizes):
    server, _ = asked()
    assert receive(server, cut(b"".join(frames()), sizes)) == (ANSWERS, "")


@given(
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=0, max_size=6)), max_size=4),
    st.lists(st.integers(0, 80), max_size=8),
)
@settings(max_examples=400)
def test_mutated_frames_are_messages_or_one_error_wherever_the_pipe_cuts(mutations, sizes):
    data = bytearray(b"".join(frames()))
    for position, replacement in mutations:
        start = position % len(data)
        data[start : start + len(replacement)] = replacement
    whole = receive(asked()[0], [bytes(data)])
    parts = receive(asked()[0], cut(bytes(data), sizes))
    # NaN is not equal to itself, and it may be what a mutation made of a float.
    assert repr(parts) == repr(whole)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_messages_or_a_protocol_error(data):
    for role in Role:
        connection = Connection(role)
        try:
            connection.receive_data(data)
            connection.receive_eof()
        except RemoteProtocolError:
            pass
        assert connection.state is State.BROKEN


reached: Counter[State | JobState] = Counter()


class TwoEnds(RuleBasedStateMachine):
    """Both ends and a slow lossless pipe: whatever was legal to send is accepted on arrival."""

    @initialize(is_ready=st.booleans())
    def greet(self, is_ready: bool) -> None:
        if is_ready:
            server, worker = self.ends[Role.SERVER], self.ends[Role.WORKER]
            server.receive_data(worker.send(m.Hello("tone", "3.11", 1)))
            worker.receive_data(server.send(m.Load()))
            server.receive_data(worker.send(m.Ready(INFO)))

    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        self.pipes = {role: bytearray() for role in Role}  # written by role, not read yet
        self.next_job = 0
        self.offsets: dict[int, int] = {}
        self.credits: dict[int, int] = {}
        self.pings: list[int] = []
        self.requests: list[int] = []
        self.asked = 0  # a number is not used again while its request is open

    @rule(pick=st.integers(0, 50), number=st.integers(0, 500), role=st.sampled_from(list(Role)))
    def send(self, role: Role, pick: int, number: int) -> None:
        end = self.ends[role]
        kinds = sorted(kind for sender, kind in CONNECTION[end.state] if sender is role)
        if kinds and (message := self.message(end, kinds[pick % len(kinds)], number)) is not None:
            self.pipes[role] += end.send(message)
            self.note(end)

    @rule(role=st.sampled_from(list(Role)), size=st.integers(1, 600))
    def deliver(self, role: Role, size: int) -> None:
        part, self.pipes[role] = bytes(self.pipes[role][:size]), self.pipes[role][size:]
        other = self.ends[Role.WORKER if role is Role.SERVER else Role.SERVER]
        for message in other.receive_data(part):  # must never raise
            self.arrived(message)
        self.note(other)

    def note(self, end: Connection) -> None:
        reached[end.state] += 1
        for job in range(self.next_job):
            reached[end.job_state(job)] += 1

    def arrived(self, message: m.Message) -> None:
        match message:
            case m.Ping():
                self.pings.append(message.nonce)
            case m.Prepare():
                self.requests.append(message.request)
            case m.Credit():
                self.credits[message.job] = message.samples

    def message(self, end: Connection, kind: str, number: int) -> m.Message | None:
        """A message of this kind that is legal now, or None."""
        if kind in ("Synthesize", "Open"):
            if len(end.jobs) >= SLOTS:
                return None
            self.next_job += 1
            job = self.next_job - 1
            self.offsets[job] = 0
            return m.Synthesize(job, 1, "four", {}) if kind == "Synthesize" else m.Open(job, 1, {})
        if kind in ("Prepared", "Failed(request)"):
            if not self.requests:
                return None
            request = self.requests.pop(number % len(self.requests))
            return m.Prepared(request) if kind == "Prepared" else m.Failed("no", request=request)
        simple: dict[str, m.Message] = {
            "Hello": m.Hello("tone", "3.11", 1),
            "Load": m.Load(),
            "Ping": m.Ping(number),
            "Shutdown": m.Shutdown(),
        }
        if kind in simple:
            # Rarely, or most lives would be very short.
            return None if kind == "Shutdown" and number % 4 else simple[kind]
        match kind:
            case "Ready":
                return None if end.slots else m.Ready(INFO)
            case "Failed(load)":
                return None if end.slots or number % 10 else m.Failed("no")
            case "Pong":
                return m.Pong(self.pings.pop(0)) if self.pings else None
            case "Prepare":
                self.asked += 1
                return m.Prepare(10_000 + self.asked, {})
        return self.about_a_job(end, kind, number)

    def about_a_job(self, end: Connection, kind: str, number: int) -> m.Message | None:
        legal = [job for job in end.jobs if (end.role, kind) in JOB[end.job_state(job)]]
        if not legal:
            return None
        job = legal[number % len(legal)]
        match kind:
            case "Text":
                return m.Text(job, "more")
            case "EndText":
                return m.EndText(job)
            case "Cancel":
                return m.Cancel(job)
            case "Credit":
                self.credits.setdefault(-1 - job, 0)
                self.credits[-1 - job] += number
                return m.Credit(job, self.credits[-1 - job])
            case "Words":
                return m.Words(job, 1, [])
            case "Audio":
                room = self.credits.get(job, 0) - self.offsets[job]
                if room <= 0:
                    return None
                offset, count = self.offsets[job], min(room, 1 + number % 20)
                self.offsets[job] += count
                return m.Audio(job, 1, offset, b"ab" * count)
            case "Done":
                cancelled = end.job_state(job) is JobState.CANCELLING
                return m.Done(job, 1, self.offsets[job], cancelled)
        return m.Failed("no", job=job, attempt=1)


def test_whatever_is_legal_to_send_is_accepted_however_late():
    reached.clear()
    run_state_machine_as_test(
        TwoEnds,
        settings=settings(
            max_examples=300, stateful_step_count=60, deadline=None, database=None, derandomize=True
        ),
    )
    # Without this the machine could pass by never getting anywhere.
    assert set(reached) >= {*State} - {State.BROKEN} | {*JobState}


def test_a_server_survives_no_message_out_of_the_blue():
    for frame in frames():
        with pytest.raises(ProtocolError, match="while opening"):
            Connection(Role.SERVER).receive_data(frame)
