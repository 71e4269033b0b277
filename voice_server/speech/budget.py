"""What one client may send: bytes in a message, messages in a second."""

from __future__ import annotations

from voice_server.config import Limits
from voice_server.core.errors import RateLimited, TooLarge


class Budget:
    """Times are those of a clock of the caller's, in seconds."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._messages = float(limits.messages_burst)
        self._as_of = now

    def charge(self, raw: str, now: float) -> None:
        """Make the client pay for a message, before it is looked at. Raises TooLarge, RateLimited.

        What is not used in a second may be used later, up to ``messages_burst`` messages.
        """
        limits = self._limits
        # A character has at most four bytes: most messages need not be encoded to be measured.
        if len(raw) * 4 > limits.max_message_bytes < len(raw.encode("utf-8", "surrogatepass")):
            raise TooLarge(f"a message has at most {limits.max_message_bytes} bytes; send less")
        earned = (now - self._as_of) * limits.messages_per_second
        self._messages = min(float(limits.messages_burst), self._messages + earned) - 1
        self._as_of = now
        if self._messages < 0:
            raise RateLimited(
                f"more than {limits.messages_per_second} messages a second; "
                "put more text into each token message"
            )
