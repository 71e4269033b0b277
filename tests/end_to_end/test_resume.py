"""A socket that drops in the middle of a turn: another one continues it, byte for byte."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import Server, wait_until
from tests.end_to_end.talking import Talk, talk
from voice_server.core.wire import Resume
from voice_server.speech.channel import Channel, ChannelClosed

STORY = " ".join(f"This is sentence number {n} of the story." for n in range(12))


@pytest.fixture
def path(server: Server, http: httpx.Client) -> str:
    return f"{server.ws}/stream-tokens"


def undisturbed(path: str, **config: Any) -> Talk:
    with talk(path) as agent:
        agent.send(**config, token=STORY, done=True)
        agent.until("done")
    return agent


def dropped(path: str, frames: int, *, is_ended: bool = True, **config: Any) -> tuple[str, Talk]:
    """Drop after so many frames. Returns the session's name."""
    with talk(path) as agent:
        agent.send(**config, token=STORY, done=is_ended)
        session = agent.until("ready")["session"]
        for _ in range(frames):
            agent.until("audio")
        agent.drop()
    return session, agent


def resumed(path: str, session: str, received: int) -> Talk:
    with talk(path) as agent:
        agent.send(resume={"session": session, "samples": received})
        assert agent.until("resumed")["samples"] == received
        agent.until("done")
        agent.until_closed()
        return agent


@pytest.mark.parametrize("backend", ["tone", "babble", "espeak"])
@pytest.mark.parametrize("frames", [1, 7])
def test_a_dropped_turn_goes_on_byte_for_byte(path: str, backend: str, frames: int) -> None:
    config = {"backend": backend, "seed": 5, "timestamps": True}
    whole = undisturbed(path, **config)
    session, before = dropped(path, frames, **config)
    after = resumed(path, session, before.received // 2)
    assert before.sound + after.sound == whole.sound
    # Messages may come twice, none is missing.
    assert {*before.sentences, *after.sentences} == {*whole.sentences}


def test_a_resume_may_begin_inside_a_frame(path: str) -> None:
    whole = undisturbed(path, backend="tone", seed=5)
    session, before = dropped(path, 4, backend="tone", seed=5)
    heard = before.received // 2 - 100
    after = resumed(path, session, heard)
    assert before.sound[: heard * 2] + after.sound == whole.sound


def test_what_was_lost_after_everything_was_sent_can_be_had_again(
    server: Server, path: str
) -> None:
    whole = undisturbed(path, backend="tone", seed=5)
    session, before = dropped(path, 2, backend="tone", seed=5)
    # The turn has ended in the server; what it sent went into nothing.
    wait_until(lambda: not server.turns or server.service.parking)
    after = resumed(path, session, before.received // 2)
    assert before.sound + after.sound == whole.sound


def test_what_was_lost_behind_the_servers_goodbye_can_be_had_again(
    server: Server, path: str
) -> None:
    with talk(path, max_queue=1) as agent:
        # The server closes at once, but that waits unread behind the sound.
        agent.send(backend="tone", seed=5, token=STORY, done=True)
        session = agent.until("ready")["session"]
        wait_until(lambda: not server.turns)
        agent.drop()
    wait_until(lambda: session in server.service.parking)
    assert resumed(path, session, 0).sound == undisturbed(path, backend="tone", seed=5).sound


def test_text_goes_on_where_it_broke_off(path: str) -> None:
    whole = undisturbed(path, backend="tone", seed=5)
    with talk(path) as agent:
        half = len(STORY) // 2
        agent.send(backend="tone", seed=5)
        session = agent.until("ready")["session"]
        agent.send(token=STORY[:half])
        agent.until("audio")
        agent.drop()
    with talk(path) as later:
        later.send(resume={"session": session, "samples": agent.received // 2})
        characters = later.until("resumed")["characters"]
        assert characters == half
        later.send(token=STORY[characters:], done=True)
        later.until("done")
    assert agent.sound + later.sound == whole.sound


def test_over_msgpack_the_offsets_go_on(path: str) -> None:
    config = {"backend": "tone", "seed": 5, "framing": "msgpack"}
    whole = undisturbed(path, **config)
    session, before = dropped(path, 3, **config)
    heard = before.received // 2 - 7
    after = resumed(path, session, heard)
    assert before.sound[: heard * 2] + after.sound == whole.sound
    offsets = [frame["offset"] for frame in after.of("audio")]
    assert offsets == [heard + frame["after"] // 2 for frame in after.of("audio")]


def test_compressed_sound_is_counted_in_bytes(path: str) -> None:
    config = {"backend": "tone", "seed": 5, "format": {"encoding": "mp3"}}
    whole = undisturbed(path, **config)
    session, before = dropped(path, 3, **config)
    after = resumed(path, session, before.received)
    assert before.sound + after.sound == whole.sound


@pytest.mark.parametrize("samples", [10**9, 2**62])
def test_more_than_was_ever_sent_cannot_be_resumed(path: str, samples: int) -> None:
    session, _ = dropped(path, 2, backend="tone")
    with talk(path) as agent:
        agent.send(resume={"session": session, "samples": samples})
        assert agent.until_closed() == 1008
        [error] = agent.of("error")
        assert error["code"] == "resume_failed"
        assert "begin a new turn" in error["msg"]


def test_who_asks_for_what_was_never_sent_ends_the_half_open_socket_too(path: str) -> None:
    with talk(path) as stale, talk(path) as fresh:
        stale.send(backend="tone", keep_open=True, token=STORY)
        session = stale.until("ready")["session"]
        fresh.send(resume={"session": session, "samples": 10**9})
        assert fresh.until_closed() == 1008
        # Nobody would enforce its deadlines any more.
        assert stale.until_closed() == 1008
        assert stale.messages[-1]["code"] == "resume_failed"


def test_a_session_that_somebody_else_asks_for_is_kept_for_its_own_client(
    server: Server, path: str
) -> None:
    class Stranger(Channel):
        async def receive(self) -> str:
            raise ChannelClosed(is_clean=True)

        async def send(self, *messages: str | bytes) -> None: ...
        async def close(self, code: int, reason: str) -> None: ...

    whole = undisturbed(path, backend="tone", seed=5)
    session, before = dropped(path, 2, backend="tone", seed=5)
    wait_until(lambda: session in server.service.parking)
    server.call(server.service._resume(Resume(session), Stranger(), "another tenant"))
    assert session in server.service.parking
    after = resumed(path, session, before.received // 2)
    assert before.sound + after.sound == whole.sound


def test_a_session_whose_time_is_up_is_gone(server: Server, path: str) -> None:
    session, before = dropped(path, 2, backend="tone")
    wait_until(lambda: session in server.service.parking)
    server.expire_sessions()
    with talk(path) as agent:
        agent.send(resume={"session": session, "samples": before.received // 2})
        assert agent.until_closed() == 1008
        assert agent.of("error")[0]["code"] == "resume_failed"


def test_a_client_that_says_goodbye_does_not_come_back(server: Server, path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", token=STORY)
        session = agent.until("ready")["session"]
        agent.until("audio")
    server.wait_quiet()
    with talk(path) as later:
        later.send(resume={"session": session, "samples": 0})
        assert later.until_closed() == 1008


def test_a_half_open_socket_is_replaced_by_the_one_that_resumes(path: str) -> None:
    whole = undisturbed(path, backend="babble", seed=5)
    with talk(path) as stale, talk(path) as fresh:
        stale.send(backend="babble", seed=5, token=STORY)
        session = stale.until("ready")["session"]
        for _ in range(3):
            stale.until("audio")
        fresh.send(resume={"session": session, "samples": stale.received // 2})
        fresh.until("resumed")
        fresh.send(done=True)
        fresh.until("done")
        assert stale.sound + fresh.sound == whole.sound


def test_a_session_nobody_listens_to_yields_its_slot_to_somebody_who_is_here(
    server: Server, path: str
) -> None:
    slots = server.service.pools["babble"].slots
    sessions = []
    for _ in range(slots):
        session, _ = dropped(path, 1, is_ended=False, backend="babble")
        sessions.append(session)
    wait_until(lambda: all(session in server.service.parking for session in sessions))
    assert server.turns == slots
    assert undisturbed(path, backend="babble", seed=5).received
    assert [session in server.service.parking for session in sessions] == [False] + [True] * (
        slots - 1
    )
    server.expire_sessions()
