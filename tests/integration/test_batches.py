"""Batches come to their end, whatever happens to an item, and do not pile up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from voice_server.web import generation
from voice_server.web.generation import Batches, NewGeneration

pytestmark = pytest.mark.anyio

ITEM = NewGeneration(profile_id="maya", text="Hello.")


async def ended(batches: Batches, batch_id: str) -> None:
    task = batches.get(batch_id).task
    assert task is not None
    await asyncio.wait([task], timeout=60)


async def test_an_item_that_fails_as_nobody_expected_ends_no_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(*_: object) -> Any:
        raise PermissionError(13, "secret/path")

    monkeypatch.setattr(generation, "_generated", refused)
    batches = Batches()
    state = batches.start(cast(Any, None), [ITEM, ITEM])
    await ended(batches, state.batch_id)
    assert (state.status, state.done) == ("done", 2)
    assert [failure.index for failure in state.failures] == [0, 1]
    assert "secret" not in state.failures[0].detail


async def test_a_batch_that_takes_long_keeps_no_others_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = asyncio.Event()
    long = ITEM.model_copy(update={"text": "long"})

    async def spoken(_: object, asked: NewGeneration) -> None:
        if asked is long:
            await go_on.wait()

    monkeypatch.setattr(generation, "_generated", spoken)
    batches = Batches()
    first = batches.start(cast(Any, None), [long])
    for _ in range(3 * generation._KEPT_BATCHES):
        await ended(batches, batches.start(cast(Any, None), [ITEM]).batch_id)
    assert batches.get(first.batch_id).state.status == "running"
    assert len(batches._batches) == generation._KEPT_BATCHES
    go_on.set()
    await ended(batches, first.batch_id)
