"""Whether one more turn can be spoken in real time beside those that are being spoken."""

from __future__ import annotations

from dataclasses import dataclass

from voice_server.core.errors import BusyError

# The part of its work that a pool can promise. A segment is spoken without preemption and people's
# sentences are uneven: where a segment takes long, a few turns stutter at 0.6 by simulation
# (tests/simulation). Where it is short beside the sound that its listener still has, none does at
# 0.75; what is left then is for the server, which speaks to them all on the same processors.
HEADROOM = 0.5
MOST_HEADROOM = 0.7
# A backend is taken to need this much of a slot for each listener until its first job was measured,
# which is before a crowd can come.
UNKNOWN_RTF = 0.1
# What one API key may hold while others exist: the rest is there when somebody else comes.
TENANT_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool is doing. ``rtf``: slot-seconds of work per second of sound, None if unknown.

    ``turns``: all that are spoken; ``tenant_turns``: those of the API key that asks, None where
    there are no keys; ``largest_tenant``: the most that any key has. ``takes_text``: a job holds
    its slot for the whole turn.
    """

    slots: int
    turns: int
    rtf: float | None
    takes_text: bool = False
    tenant_turns: int | None = None
    largest_tenant: int = 0


def capacity(load: Load) -> int:
    """How many turns the pool can speak at once without a gap; never fewer than it has slots."""
    if load.takes_text:
        return load.slots
    rtf = UNKNOWN_RTF if load.rtf is None else max(load.rtf, 1e-4)
    headroom = max(HEADROOM, MOST_HEADROOM - 10.0 * rtf / load.slots)
    return max(load.slots, int(load.slots * headroom / rtf))


def admit(load: Load, *, backend: str) -> None:
    """Raise BusyError, with a time to come back, when one more turn would make others stutter."""
    limit = capacity(load)
    share = max(1, int(limit * TENANT_SHARE))
    turns = load.turns
    if load.tenant_turns is not None and load.tenant_turns < share:
        # What another key was given beyond its share, while the pool was quicker, is not at the
        # expense of this one.
        turns -= max(0, load.largest_tenant - share)
    if turns >= limit:
        remedy = "try again in a moment, or raise --pool-size"
        message = (
            f"{backend} speaks {load.turns} turns, as many as its {load.slots} slots can carry"
        )
    elif load.tenant_turns is not None and load.tenant_turns >= share:
        remedy = "let one end first; the rest is for others"
        message = (
            f"this key speaks {load.tenant_turns} of the {limit} turns that {backend} can carry"
        )
    else:
        return
    error = BusyError(f"{message}; {remedy}")
    # A turn lasts some seconds, and one of many ends sooner than one of few.
    error.retry_after = min(10.0, max(0.5, 8.0 / max(1, load.turns)))
    raise error
