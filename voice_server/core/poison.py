"""Which text is guilty when workers die under it, and which texts are refused for a while."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

# The weight of a death as evidence against the text that was being spoken.
CRASH: Final = 1.0  # an exit code, a fault signal, a hang, a broken protocol: the worker's doing
KILLED: Final = 0.5  # SIGKILL or SIGTERM from outside: the operator's doing, or out of memory

GUILTY: Final = 2.0  # so much evidence of crashes in one place convicts
GUILTY_ANYWHERE: Final = 3.0  # and so much from lone crashes, wherever they were
GUILTY_OF_KILLS: Final = 2.5  # and so much from kills alone, which come by chance more often
KILL_ELSEWHERE: Final = 1.0  # and so much more for each that met other workers meanwhile
SUSPICIOUS: Final = 2.0  # deaths in company of so much weight keep a job apart from others
ANY_COMPANY: Final = 1 << 30


@dataclass(slots=True)
class Blame:
    """The evidence against one job.

    A text that kills does so at the same place each time, since the seed is the same. A job that
    got further on its second run did not die of its text the first time, so the older evidence
    is dropped. Jobs that died together share the doubt: none is convicted before it was the only
    suspect, and ``company`` says with how many suspects it may run next, so that the one is found
    in a few steps while the others go on.

    A kill comes from outside, or from the kernel because the text takes all memory. Who kills
    workers that do not speak this text is no evidence against it.
    """

    company: int = ANY_COMPANY
    _crashes: float = 0.0
    _kills: float = 0.0
    _kills_met: int = 0  # wherever they were
    _kills_before: int = 0  # of the pool's workers, when the first one met this job
    _together: float = 0.0
    _lone_crashes: float = 0.0
    _reached: int = -1

    @property
    def is_suspect(self) -> bool:
        """True when it has died in company at the same place again: it has to be kept apart."""
        return self.company < ANY_COMPANY

    def died(self, weight: float, reached: int, suspects: int, kills_before: int = 0) -> bool:
        """Note a death after ``reached`` samples, with ``suspects`` jobs (this one included) that
        could be its cause, and ``kills_before`` of this pool's workers. Returns True when the job
        is convicted."""
        if weight <= 0.0:
            return False
        if reached != self._reached:
            self._reached, self.company = reached, ANY_COMPANY
            self._crashes = self._kills = self._together = 0.0
        is_crash = weight >= CRASH
        elsewhere = 0 if is_crash else self._note_kill(kills_before)
        if suspects > 1:
            # What comes from outside hits anybody; that it hit this one in a crowd proves nothing.
            self._crashes += weight / 2 if is_crash else 0.0
            self._together += weight
            if self._together >= SUSPICIOUS:
                self.company = max(1, suspects // 8)
            return False
        if not is_crash:
            self._kills += weight
            return self._kills >= GUILTY_OF_KILLS + KILL_ELSEWHERE * elsewhere
        self._crashes += weight
        self._lone_crashes += weight
        return self._crashes >= GUILTY or self._lone_crashes >= GUILTY_ANYWHERE

    def _note_kill(self, kills_before: int) -> int:
        """Returns how many kills have met other workers since the first one that met this job."""
        if not self._kills_met:
            self._kills_before = kills_before
        elsewhere = kills_before - self._kills_before - self._kills_met
        self._kills_met += 1
        return max(0, elsewhere)


class Quarantine:
    """Texts that killed two workers, refused for ``seconds``. Holds digests, never the texts."""

    def __init__(self, seconds: float = 600.0, size: int = 256) -> None:
        self._seconds = seconds
        self._size = size
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._lengths: set[int] = set()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, text: str, voice: str, now: float) -> None:
        """Refuse ``text`` in this ``voice`` from now on: another voice may well survive it."""
        self._until[_digest(text, voice)] = now + self._seconds
        self._lengths.add(len(text))
        while len(self._until) > self._size:
            self._until.popitem(last=False)

    def may_hold(self, length: int) -> bool:
        """Is any refused text so long? Spares the caller to put the text together."""
        return length in self._lengths

    def holds(self, text: str, voice: str, now: float) -> bool:
        """Is this text refused?"""
        key = _digest(text, voice)
        until = self._until.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self._until[key]
        if not self._until:
            self._lengths.clear()
        return False


def _digest(text: str, voice: str) -> bytes:
    data = f"{len(voice)}:{voice}{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()
