"""The first sound of a turn goes ahead of the rest."""

import asyncio
from typing import Any

from voice_server.core import events as e
from voice_server.core.delivery import Frame
from voice_server.core.wire import Cancel, Done, Token
from voice_server.speech.route import Route
from voice_server.speech.turn import HEAD_START, Turn
from voice_server.workers.job import Job


class Pool:
    """Makes ten seconds of silence of every text, at once."""

    is_contended = False

    def submit(self, job: Job) -> None:
        job.sink.started()
        job.sink.audio(bytes(480_000))
        job.sink.done(240_000, {})

    def reconsider(self, job: Job) -> None: ...

    def cancel(self, job: Job) -> None: ...


def taken(turn: Turn) -> list[Any]:
    items = []
    while (item := turn.take()) is not None:
        items.append(item)
    return items


def samples(items: list[Any]) -> int:
    return sum(len(item.pcm) // 2 for item in items if isinstance(item, Frame))


def begin() -> tuple[Turn, asyncio.Event]:
    wake = asyncio.Event()
    options = e.TurnOptions()
    route = Route("x", Pool(), {}, "", {}, options, options, 0)  # type: ignore[arg-type]
    turn = Turn(route, options, wake.set)
    turn.post(Token("A sentence that is ready at once."))
    turn.post(Done())
    return turn, wake


def test_a_ready_turn_goes_out_in_two_parts() -> None:
    async def go() -> None:
        turn, wake = begin()
        first = samples(taken(turn))
        assert HEAD_START <= first < 2 * HEAD_START
        assert not turn.is_over
        wake.clear()
        await asyncio.wait_for(wake.wait(), 30)
        rest = taken(turn)
        assert first + samples(rest) == 240_000
        assert rest[-1]["type"] == "done"
        assert turn.is_over

    asyncio.run(go())


def test_an_interruption_does_not_wait_for_the_second_part() -> None:
    async def go() -> None:
        turn, _ = begin()
        taken(turn)
        turn.post(Cancel())
        assert [item["type"] for item in taken(turn)] == ["cancelled"]
        assert turn.is_over
        turn.close()

    asyncio.run(go())


def test_a_turn_that_is_given_up_wakes_nobody() -> None:
    async def go() -> None:
        turn, wake = begin()
        taken(turn)
        turn.close()
        wake.clear()
        await asyncio.sleep(0.05)
        assert not wake.is_set()

    asyncio.run(go())
