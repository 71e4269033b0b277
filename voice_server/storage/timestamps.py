"""The one form of times in the database."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The time, ISO 8601 in UTC, to the microsecond, so that it sorts."""
    return _stored(datetime.now(UTC))


def time_from(text: str) -> str:
    """A date or time in ISO 8601 in that form; without a zone it is UTC. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
        return _stored(time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError("expected a time such as 2026-02-15T00:00:00Z") from None


def _stored(time: datetime) -> str:
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
