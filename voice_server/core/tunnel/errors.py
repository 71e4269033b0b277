"""How a tunnel ends before its time."""

from __future__ import annotations


class TunnelBroken(Exception):
    """The peer's bytes are not what they must be: close the link, believe none of it."""


class Refused(Exception):
    """The relay does not let the box in.

    ``code`` is ``unauthorized`` or ``name_taken``, or that of the error in an answer of HTTP, such
    as ``tunnel_version`` or ``rate_limited``.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
