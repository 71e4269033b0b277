"""What is legal on the pipe and when: one table for the connection, one for each job on it.

OPENING ─Hello→ GREETED ─Load→ LOADING ─Ready→ READY ─Shutdown→ CLOSING ─EOF→
                                  └──────Failed(load)─────────────↗
a peer's mistake, or EOF where none may be, leads to BROKEN from everywhere

OPEN ─EndText→ ENDED ─Done, Failed→ OVER          Synthesize begins a job as ENDED,
  └────Cancel────┴──→ CANCELLING ─Done, Failed→ OVER         Open as OPEN
"""

from __future__ import annotations

import enum

from voice_worker import messages as m


class Role(enum.Enum):
    SERVER = "server"
    WORKER = "worker"

    # Enum hashes by name, in Python; the tables are asked twice for every message.
    __hash__ = object.__hash__


class State(enum.Enum):
    """Of the connection."""

    OPENING = "opening"
    GREETED = "greeted"
    LOADING = "loading"
    READY = "ready"
    CLOSING = "closing"
    BROKEN = "broken"

    __hash__ = object.__hash__


class JobState(enum.Enum):
    """Of one job. OPEN: text may follow. ENDED: its text is complete. OVER: Done or Failed."""

    OPEN = "open"
    ENDED = "ended"
    CANCELLING = "cancelling"
    OVER = "over"

    __hash__ = object.__hash__


S, W = Role.SERVER, Role.WORKER
Table = dict[tuple[Role, str], State]
JobTable = dict[tuple[Role, str], JobState]

# Failed is three messages in one: about a job, about a Prepare, or about the load.
FAILED_JOB, FAILED_REQUEST, FAILED_LOAD = "Failed(job)", "Failed(request)", "Failed(load)"
OPENERS = ("Synthesize", "Open")
FOLLOWERS = ("Text", "EndText", "Cancel", "Credit")
REPLIES = ("Audio", "Words", "Done", FAILED_JOB)


def _stay(state: State) -> Table:
    """What never changes the connection's state: pings, and replies to what was asked before."""
    table: Table = {(S, "Ping"): state, (W, "Pong"): state}
    if state in (State.READY, State.CLOSING):
        table |= {(S, name): state for name in FOLLOWERS}
        table |= {(W, name): state for name in (*REPLIES, "Prepared", FAILED_REQUEST)}
    return table


# Who may send what, when, and to which state that leads. Nothing else is legal.
CONNECTION: dict[State, Table] = {
    State.OPENING: {(W, "Hello"): State.GREETED},
    State.GREETED: {
        **_stay(State.GREETED),
        (S, "Load"): State.LOADING,
        (S, "Shutdown"): State.CLOSING,
    },
    State.LOADING: {
        **_stay(State.LOADING),
        (W, "Ready"): State.READY,
        (W, FAILED_LOAD): State.CLOSING,
        (S, "Shutdown"): State.CLOSING,
    },
    State.READY: {
        **_stay(State.READY),
        **{(S, name): State.READY for name in (*OPENERS, "Prepare")},
        (S, "Shutdown"): State.CLOSING,
    },
    # A worker that is asked to go while it loads may have answered already.
    State.CLOSING: {
        **_stay(State.CLOSING),
        (W, "Ready"): State.CLOSING,
        (W, FAILED_LOAD): State.CLOSING,
        (S, "Shutdown"): State.CLOSING,
    },
    State.BROKEN: {},
}

# The same for one job; it begins with Synthesize (ENDED at once) or Open (OPEN).
JOB: dict[JobState, JobTable] = {
    JobState.OPEN: {
        (S, "Text"): JobState.OPEN,
        (S, "EndText"): JobState.ENDED,
        (S, "Credit"): JobState.OPEN,
        (S, "Cancel"): JobState.CANCELLING,
        (W, "Audio"): JobState.OPEN,
        (W, "Words"): JobState.OPEN,
        (W, FAILED_JOB): JobState.OVER,
    },
    JobState.ENDED: {
        (S, "Credit"): JobState.ENDED,
        (S, "Cancel"): JobState.CANCELLING,
        (W, "Audio"): JobState.ENDED,
        (W, "Words"): JobState.ENDED,
        (W, "Done"): JobState.OVER,
        (W, FAILED_JOB): JobState.OVER,
    },
    # The server says nothing more about a job it cancelled; the worker may have spoken before.
    JobState.CANCELLING: {
        (W, "Audio"): JobState.CANCELLING,
        (W, "Words"): JobState.CANCELLING,
        (W, "Done"): JobState.OVER,
        (W, FAILED_JOB): JobState.OVER,
    },
    # Only as a crossing: legal to receive, because the server could not know, never to send.
    JobState.OVER: {(S, name): JobState.OVER for name in FOLLOWERS},
}


def kind_of(message: m.Message) -> str:
    """The message's name in the tables."""
    cls = type(message)
    if cls is not m.Failed:
        return cls.__name__
    assert isinstance(message, m.Failed)
    if message.job is not None:
        return FAILED_JOB
    return FAILED_LOAD if message.request is None else FAILED_REQUEST
