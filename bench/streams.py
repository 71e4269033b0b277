"""Many listeners at once in real time: time to first audio, gaps, processor and memory.

    python -m bench.streams [--listeners 100 200 400] [--backend espeak] [--pool-size 2]

Every listener sends six sentences as a language model would, twenty tokens a second, within nine
seconds, and plays what it gets on a clock of its own: a frame that comes after the sound before it
has ended is an underrun. The baseline is a bare uvicorn WebSocket that sends the same number of
bytes to as many listeners on the same schedule. The clients are as cheap as Python allows: they run
on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import uvloop

from bench import servers
from bench.ws import connect, path, text_frame

SENTENCES = [
    "Sure, I can help you to find a good train for that journey.",
    "The fast one to the coast leaves at nine in the morning.",
    "It stops at three stations on the way, and it has a cafe.",
    "You will arrive shortly before noon if nothing goes wrong.",
    "A ticket for two costs about forty dollars at this time.",
    "Shall I book you two seats by the window, facing the sea?",
]
TEXT = " ".join(SENTENCES)
# 180 tokens: at twenty a second the text takes nine seconds.
TOKENS = re.findall(r"(?s).{1,2}", TEXT)
TOKEN_FRAMES = {token: text_frame({"token": token}) for token in TOKENS}
TOKEN_GAP = 0.05
BYTES_PER_SECOND = 48_000


@dataclass
class Listener:
    """What one listener heard."""

    asked_at: float = 0.0  # when the token left that ends the first sentence
    first_at: float = 0.0
    dry_at: float = 0.0
    _last_at: float = 0.0
    sound: int = 0
    frames: int = 0
    underruns: int = 0
    worst_gap: float = 0.0
    gaps: list[float] = field(default_factory=list)  # seconds from one frame to the next
    errors: list[bytes] = field(default_factory=list)

    def on_frame(self, is_binary: bool, payload: bytes) -> None:
        if is_binary:
            self.hear(len(payload))
        elif b'"error"' in payload:
            self.errors.append(payload)

    def hear(self, size: int) -> None:
        """``size`` bytes of int16 at 24 kHz came."""
        now = time.perf_counter()
        if not self.first_at:
            self.first_at = self.dry_at = self._last_at = now
        self.gaps.append(now - self._last_at)
        self._last_at = now
        if now > self.dry_at:
            self.underruns += 1
            self.worst_gap = max(self.worst_gap, now - self.dry_at)
            self.dry_at = now
        self.dry_at += size / BYTES_PER_SECOND
        self.sound += size
        self.frames += 1


async def written(listener: Listener) -> AsyncIterator[str]:
    """The tokens, as a language model writes them. Notes when the first sentence is asked for."""
    text, first = "", SENTENCES[0] + " "
    next_at = time.perf_counter()
    for token in TOKENS:
        was_short, text = len(text) <= len(first), text + token
        if was_short and len(text) > len(first):
            listener.asked_at = time.perf_counter()
        yield token
        next_at += TOKEN_GAP
        await asyncio.sleep(max(0.0, next_at - time.perf_counter()))


async def listen(port: int, delay: float, api_key: str) -> Listener:
    """One whole turn."""
    listener = Listener()
    await asyncio.sleep(delay)
    socket = await connect(port, path("/stream-tokens", api_key), listener.on_frame)
    async for token in written(listener):
        socket.send(TOKEN_FRAMES[token])
    socket.send(text_frame({"done": True}))
    await asyncio.wait_for(socket.closed.wait(), 120)
    return listener


async def listen_baseline(port: int, delay: float, size: int) -> Listener:
    """As many messages in, as many bytes out, without speech."""
    listener = Listener()
    await asyncio.sleep(delay)
    socket = await connect(port, "/", listener.on_frame)
    share, next_at = size // 6, time.perf_counter()
    marks = {len(TOKENS) * (i + 1) // 6 - 1 for i in range(6)}
    for index in range(len(TOKENS)):
        if index in marks:
            listener.asked_at = listener.asked_at or time.perf_counter()
        socket.send(text_frame({"say": share if index in marks else 0}))
        next_at += TOKEN_GAP
        await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
    await asyncio.sleep(0.5)
    socket.transport.close()
    return listener


async def run(port: int, count: int, size: int | None, api_key: str = "") -> list[Listener]:
    # Listeners come at random within two seconds: a crowd, not a parade.
    chance = random.Random(1)
    delays = [chance.uniform(0, 2) for _ in range(count)]
    if size is None:
        return await asyncio.gather(*(listen(port, delay, api_key) for delay in delays))
    return await asyncio.gather(*(listen_baseline(port, delay, size) for delay in delays))


def summary(listeners: list[Listener], prefix: str = "") -> dict[str, object]:
    """How long they waited for their first sound (keys with ``prefix``), and what they heard."""
    waits = [one.first_at - one.asked_at for one in listeners if one.first_at]
    times = servers.percentiles(waits) if waits else {}
    return {
        "listeners": len(listeners),
        **{f"{prefix}{key}": value for key, value in times.items()},
        "underruns": sum(one.underruns for one in listeners),
        "worst_gap_ms": round(max(one.worst_gap for one in listeners) * 1e3, 1),
        "errors": sum(len(one.errors) for one in listeners),
        "audio_s": round(sum(one.sound for one in listeners) / BYTES_PER_SECOND),
    }


def row(
    name: str, pid: int, before: float, rss: int, listeners: list[Listener]
) -> dict[str, object]:
    frames = sum(one.frames for one in listeners)
    cpu = servers.cpu_seconds(pid) - before
    return {
        "what": name,
        **summary(listeners, "ttfa_"),
        "frames_per_cpu_s": round(frames / cpu) if cpu else 0,
        "kb_each": round((servers.memory_kb(pid) - rss) / len(listeners)),
    }


async def idle_kb(port: int, pid: int, count: int = 400) -> float:
    """Resident memory of an idle, configured connection, in KiB."""
    before = servers.memory_kb(pid)
    sockets = [await connect(port, "/stream-tokens", lambda *_: None) for _ in range(count)]
    for socket in sockets:
        socket.send(text_frame({"keep_open": True}))
    await asyncio.sleep(1.0)
    used = servers.memory_kb(pid) - before
    for socket in sockets:
        socket.transport.close()
    return round(used / count, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--listeners", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--backend", default="espeak")
    parser.add_argument("--pool-size", default="2")
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    size = 0
    flags = ("--backend", args.backend, "--pool-size", args.pool_size)
    for count in args.listeners:
        with servers.voice_server(*flags) as (process, port):
            uvloop.run(run(port, 2, None))
            idle = uvloop.run(idle_kb(port, process.pid))
            cpu, rss = servers.cpu_seconds(process.pid), servers.memory_kb(process.pid)
            listeners = uvloop.run(run(port, count, None))
            size = max(one.sound for one in listeners)
            measured = row(args.backend, process.pid, cpu, rss, listeners)
            rows.append({**measured, "kb_idle": idle})
        with servers.baseline() as (process, port):
            cpu, rss = servers.cpu_seconds(process.pid), servers.memory_kb(process.pid)
            rows.append(
                row("bare uvicorn", process.pid, cpu, rss, uvloop.run(run(port, count, size)))
            )
    servers.report("streams", rows)


if __name__ == "__main__":
    main()
