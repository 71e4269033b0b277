"""The one form of times in the database."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The time, ISO 8601 in UTC, to the microsecond, so that it sorts."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
