"""The tunnel: frames that were tampered with, links that are cut, a relay that is killed."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx

from tests.chaos.lines import Reached, count, line, p99
from tests.end_to_end.hosts import two_hosts
from tests.end_to_end.relayed import AUTHORISED, PATIENCE, box, pair, relay
from tests.end_to_end.talking import Talk, talk
from tests.tunnelling import links
from voice_server.core.tunnel import Encoding, TunnelBroken

T = TypeVar("T")

STORY = " ".join(f"This is sentence number {n} of the story." for n in range(20))


@line("frames of the tunnel", "10,000 mutated, repeated or moved frames: 0 accepted")
def tampered(scale: float) -> Reached:
    chance, whole = random.Random(3), count(10_000, scale, 300)
    accepted = sum(_is_accepted(chance, number) for number in range(whole))
    return Reached(f"{whole} frames: {accepted} accepted", not accepted)


def _is_accepted(chance: random.Random, number: int) -> bool:
    encoding: Encoding = "json" if number % 2 else "msgpack"
    sender, receiver = links(encoding, number.to_bytes(4, "big"))
    frames = [sender.seal({"ack": n, "body": chance.randbytes(40)}) for n in range(4)]
    place = chance.randrange(1, 3)
    for frame in frames[:place]:
        receiver.open(frame)
    match number % 3:
        case 0:
            raw = (
                bytearray(frames[place], "utf-8")
                if encoding == "json"
                else bytearray(frames[place])
            )  # type: ignore[arg-type, call-overload]
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(
                8 if encoding == "msgpack" else 4
            )
            bad: bytes | str = raw.decode("utf-8", "replace") if encoding == "json" else bytes(raw)
        case 1:
            bad = frames[place - 1]
        case _:
            bad = frames[place + 1]
    try:
        receiver.open(bad)
    except TunnelBroken:
        return False
    return True


@line("the link of the tunnel", "cut at 200 random bytes in the middle of turns: 0 bytes differ")
def cuts(scale: float) -> Reached:
    def cut(wanted: int, seed: int) -> tuple[int, int]:
        """(cuts made, turns that differ)"""
        chance, differing, made = random.Random(seed), 0, 0
        with (
            tempfile.TemporaryDirectory() as folder,
            two_hosts() as hosts,
            pair(Path(folder), "--backend", "tone", hosts=hosts) as tunnel,
        ):
            whole = _turn(tunnel.box_host.address, tunnel.direct)
            wire = tunnel.wire.wire
            while made < wanted:
                wire.cuts = [chance.randrange(2_000, 90_000) for _ in range(4)]
                tunnel.wire.cut()  # so that the next links have those lengths
                tunnel.wait_connected()
                before = wire.cut_in_two
                heard = _turn(tunnel.relay_host.address, tunnel.port)
                differing += heard.sound != whole.sound or heard.sentences != whole.sentences
                made += wire.cut_in_two - before
        return made, differing

    made, differing = map(sum, zip(*_twice(cut, count(200, scale, 4)), strict=True))
    return Reached(f"{made} cuts: {differing} turns differ", not differing)


def _twice(work: Callable[[int, int], T], wanted: int) -> list[T]:
    """Half of what is wanted each, at the same time: most of it is waiting. Each has a seed."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, [-(-wanted // 2)] * 2, (5, 6)))


def _turn(host: str, port: int) -> Talk:
    url = f"ws://{host}:{port}/stream-tokens"
    with talk(url, additional_headers=AUTHORISED) as agent:
        agent.send(token=STORY, done=True, seed=5, timestamps=True)
        agent.until("done")
        agent.until_closed()
    return agent


@line("the relay is killed", "100 times: boxes are back, p99 < 5 s; 0 answers for somebody else")
def restarts(scale: float) -> Reached:
    def restart(wanted: int, seed: int) -> tuple[list[float], int]:
        """(seconds from each relay's start to its box, answers for somebody else)"""
        times, crossed = [], 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with relay(folder) as port:
                pass
            with box(folder, f"ws://127.0.0.1:{port}", "--backend", "tone"):
                for number in range(wanted):
                    with relay(folder, port, is_killed=True):
                        since = time.monotonic()
                        with httpx.Client(
                            base_url=f"http://127.0.0.1:{port}",
                            headers=AUTHORISED,
                            timeout=PATIENCE,
                        ) as http:
                            while not http.get("/api/v1/status").json()["tunnel_connected"]:
                                time.sleep(0.01)
                            times.append(time.monotonic() - since)
                            for asked in (f"voice-{seed}-{number}-{n}" for n in range(5)):
                                answer = http.get(f"/api/v1/tts/voices/{asked}").json()
                                crossed += asked not in answer["detail"]
        return times, crossed

    both = _twice(restart, count(100, scale, 2))
    times = [one for times, _ in both for one in times]
    crossed = sum(crossed for _, crossed in both)
    found = p99(times)
    figure = f"{len(times)} restarts: p99 {found:.2f} s, {crossed} answers for somebody else"
    return Reached(figure, not crossed, found < 5.0)
