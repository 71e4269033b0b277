"""Conversations whose socket dropped, kept for a while so that another socket can take them up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from voice_server.speech.conversation import Conversation
    from voice_server.workers.pool import WorkerPool

MAX_BYTES: Final = 64 << 20  # of sound that is kept for all of them together


class Parking:
    """The oldest come first. What leaves unclaimed is closed, and calls ``forget`` for that."""

    def __init__(self, window: float) -> None:
        """``window``: seconds that each is kept."""
        self._window = window
        self._parked: dict[str, tuple[Conversation, float]] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def __contains__(self, session: str) -> bool:
        return session in self._parked

    def __iter__(self) -> Iterator[Conversation]:
        return iter([conversation for conversation, _ in self._parked.values()])

    def add(self, conversation: Conversation, now: float) -> None:
        """Keep it, at the cost of the oldest where all together hold too much."""
        self._parked[conversation.session] = conversation, now + self._window
        held = sum(parked.kept_bytes for parked in self)
        for parked in self:
            if held <= MAX_BYTES:
                break
            held -= parked.kept_bytes
            parked.close()

    def forget(self, conversation: Conversation) -> None:
        """It was claimed, or closed."""
        parked = self._parked.get(conversation.session)
        if parked is not None and parked[0] is conversation:
            del self._parked[conversation.session]

    def expire(self, now: float) -> None:
        """Close those whose time is up."""
        for conversation, until in list(self._parked.values()):
            if now > until:
                conversation.close()

    def give_way(self, pool: WorkerPool) -> bool:
        """Close the oldest that is being spoken by ``pool``, where one is.

        Whoever is here goes before somebody who may never come back.
        """
        for conversation in self:
            if conversation.speaks_on(pool):
                conversation.close()
                return True
        return False
