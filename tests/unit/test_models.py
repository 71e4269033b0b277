"""When a model counts as idle: never soon after somebody spoke with it, or loaded it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from voice_server.control import models as module
from voice_server.control.models import Models
from voice_server.workers.process import WorkerSpec

pytestmark = pytest.mark.anyio

IDLE = 300.0


@dataclasses.dataclass(eq=False)
class Pool:
    """As much of a pool as is looked at."""

    spec: WorkerSpec
    is_ready: bool = True
    is_started: bool = True
    submitted: int = 0
    info: None = None
    last_error: str = ""

    async def wait_ready(self, timeout: float) -> None:
        pass

    def snapshot(self) -> dict[str, Any]:
        return {"workers": []}


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def watched(pool: Pool) -> Models:
    pools = cast(Any, {"tone": pool})
    return Models(pools, cast(Any, None), lambda _: 0, IDLE)


def pool() -> Pool:
    return Pool(WorkerSpec("tone", Path("tone"), Path("python")))


def test_turns_shorter_than_the_time_between_two_looks_count(clock: Clock) -> None:
    tone = pool()
    models = watched(tone)
    for _ in range(10):
        assert not models.is_idle("tone")
        tone.submitted += 1
        clock.now += IDLE
    assert not models.is_idle("tone")
    clock.now += IDLE
    assert models.is_idle("tone")


async def test_a_model_that_was_just_loaded_is_not_idle(clock: Clock) -> None:
    models = watched(pool())
    assert not models.is_idle("tone")
    clock.now += IDLE
    await models.load("tone")
    assert not models.is_idle("tone")
    clock.now += IDLE
    assert models.is_idle("tone")
