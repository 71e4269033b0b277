"""A box and its relay on two hosts: the link between them is cut, and nobody hears it."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.hosts import two_hosts
from tests.end_to_end.relayed import AUTHORISED, Pair, pair
from tests.end_to_end.talking import Talk, talk

STORY = " ".join(f"This is sentence number {n} of the story." for n in range(20))
CUTS = 8


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("hosts")
    with (
        two_hosts() as hosts,
        pair(folder, "--backend", "tone", hosts=hosts, VOICE_SERVER_RELAY_KEEPALIVE="1") as found,
    ):
        yield found


@pytest.fixture(scope="module")
def whole(tunnel: Pair) -> Talk:
    return turn(tunnel.box_host.address, tunnel.direct)


def turn(host: str, port: int) -> Talk:
    with begun(host, port) as agent:
        finish(agent)
    return agent


@contextlib.contextmanager
def begun(host: str, port: int) -> Iterator[Talk]:
    with talk(f"ws://{host}:{port}/stream-tokens", additional_headers=AUTHORISED) as agent:
        agent.send(token=STORY, done=True, seed=5, timestamps=True)
        yield agent


def finish(agent: Talk) -> None:
    agent.until("done")
    agent.until_closed()


def test_a_link_that_is_cut_at_random_bytes_costs_no_sound(tunnel: Pair, whole: Talk) -> None:
    chance, wire = random.Random(7), tunnel.wire.wire
    made = wire.cut_in_two
    while wire.cut_in_two - made < CUTS:
        wire.cuts = [chance.randrange(2_000, 90_000) for _ in range(4)]
        tunnel.wire.cut()  # so that the next links have those lengths
        tunnel.wait_connected()
        heard = turn(tunnel.relay_host.address, tunnel.port)
        assert heard.sound == whole.sound
        assert heard.sentences == whole.sentences


def test_a_cable_that_is_pulled_for_a_while_costs_no_sound(tunnel: Pair, whole: Talk) -> None:
    if not tunnel.box_host.is_separate:
        pytest.skip("network namespaces are not permitted here")
    with begun(tunnel.relay_host.address, tunnel.port) as agent:
        agent.until("audio")
        tunnel.box_host.pull()
        threading.Timer(6.0, tunnel.box_host.plug).start()
        finish(agent)
    assert agent.sound == whole.sound
    assert agent.sentences == whole.sentences
