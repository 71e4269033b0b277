"""What a worker prints: bounded in the log, its last lines kept."""

from __future__ import annotations

import logging

import pytest

from voice_server.workers.stderr import LINE_CHARS, TAIL_LINES, StderrLog


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "voice_server.worker.tone")


def test_lines_are_logged_however_the_bytes_were_cut(caplog: pytest.LogCaptureFixture) -> None:
    log = StderrLog("tone", 12)
    for piece in (b"fir", b"st\nsec", b"ond\n\nlast"):
        log.feed(piece, 0.0)
    assert logged(caplog) == ["[12] first", "[12] second"]
    log.close(0.0)
    assert logged(caplog)[2:] == ["[12] last"]
    assert list(log.tail) == ["first", "second", "last"]


def test_a_flood_is_left_out_and_counted_but_its_end_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = StderrLog("tone", 12)
    log.feed(b"".join(b"line %d\n" % n for n in range(10_000)), 0.0)
    assert len(logged(caplog)) == 200
    log.feed(b"later\n", 100.0)
    assert logged(caplog)[200:] == ["[12] … 9800 lines left out", "[12] later"]
    assert list(log.tail) == [*(f"line {n}" for n in range(9951, 10_000)), "later"]
    assert len(log.tail) == TAIL_LINES


def test_a_line_without_end_costs_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    log = StderrLog("tone", 12)
    for _ in range(200):
        log.feed(b"\r 50%" * 10_000, 0.0)
    log.close(0.0)
    assert all(len(line) <= LINE_CHARS for line in log.tail)
    assert all(len(line) <= LINE_CHARS + 5 for line in logged(caplog))


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    log = StderrLog("tone", 12)
    log.feed(b"\xff\xfe oops\n", 0.0)
    assert log.tail[-1].endswith("oops")
