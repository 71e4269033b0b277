"""Times that a client names, in the form in which they are kept."""

from __future__ import annotations

import pytest

from voice_server.storage.timestamps import now, time_from


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-02-15T00:00:00Z", "2026-02-15T00:00:00.000000Z"),
        ("2026-02-15T01:30:00.25+02:00", "2026-02-14T23:30:00.250000Z"),
        ("2026-02-15 00:00:01", "2026-02-15T00:00:01.000000Z"),
        ("2026-02-15", "2026-02-15T00:00:00.000000Z"),
        ("0999-01-01", "0999-01-01T00:00:00.000000Z"),
    ],
)
def test_a_time_is_brought_into_the_form_that_sorts(given: str, kept: str) -> None:
    assert time_from(given) == kept


def test_what_is_kept_stays_as_it_is_and_no_second_is_split_in_two() -> None:
    kept = now()
    assert time_from(kept) == kept
    assert time_from("2026-02-15T00:00:00Z") <= "2026-02-15T00:00:00.331253Z"


@pytest.mark.parametrize(
    "text", ["now", "", "1771113600", "2026-02-30", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_time_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2026-02-15T00:00:00Z"):
        time_from(text)
