"""docs/worker-protocol.md names every message, field, state and rule that the code has."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from voice_worker import messages as m
from voice_worker.legality import CONNECTION, JOB, JobState, Role, State
from voice_worker.lifeline import STACK_DUMP_SIGNAL
from voice_worker.pipe import EXIT_PROTOCOL
from voice_worker.prompts import EXIT_DEVICE_LOST
from voice_worker.runtime import EXIT_BROKEN

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "worker-protocol.md").read_text()
PROSE = " ".join(PAGE.split())
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ")
]


def documented(state: State | JobState) -> dict[tuple[Role, str], str]:
    """What the page's row of that state allows, and the state that follows."""
    (row,) = (cells for cells in ROWS if cells[0] == state.value)
    found = {}
    for role, cell in zip(Role, row[1:], strict=True):
        for entry in cell.split(", ") if cell != "–" else ():
            kind, _, after = entry.partition(" → ")
            found[role, kind] = after or state.value
    return found


@pytest.mark.parametrize("cls", m.MESSAGES)
def test_every_message_is_there_with_its_fields_and_defaults(cls):
    (row,) = (cells for cells in ROWS if cells[0] == cls.__name__)
    shown = dict(re.findall(r"`(\w+)`(?: ([^,]+))?", row[1]))
    assert list(shown) == [f.name for f in fields(cls)]
    for f in fields(cls):
        has_default = f.default is not MISSING or f.default_factory is not MISSING
        assert bool(shown[f.name]) == has_default, f.name


@pytest.mark.parametrize("state", [*State, *JobState])
def test_the_tables_are_those_of_the_code(state):
    table = CONNECTION[state] if isinstance(state, State) else JOB[state]
    assert documented(state) == {key: after.value for key, after in table.items()}


def test_the_version_the_statuses_and_the_signal_are_those_of_the_code():
    assert f"Version {m.PROTOCOL_VERSION}." in PAGE
    assert f"{EXIT_BROKEN} when the backend raised" in PROSE
    assert f"{EXIT_DEVICE_LOST} after an accelerator error" in PROSE
    assert f"{EXIT_PROTOCOL} when the server broke the protocol" in PROSE
    assert f"{STACK_DUMP_SIGNAL.name} (`voice_worker.lifeline.STACK_DUMP_SIGNAL`)" in PAGE
