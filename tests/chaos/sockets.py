"""Sockets that interrupt, do not read, say nothing, or say too much."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from bench.servers import memory_kb
from bench.ws import connect, text_frame
from tests.chaos.lines import Reached, count, line, p99
from tests.chaos.place import server

SENTENCES = [f"This is sentence number {n} of a long text." for n in range(12)]
TEXT = " ".join(SENTENCES)


def _run(work: Coroutine[Any, Any, Reached]) -> Reached:
    return asyncio.run(work)


def _socket(port: int, path: str = "/stream-tokens", **options: Any) -> Any:
    return websockets.connect(
        f"ws://127.0.0.1:{port}{path}", compression=None, open_timeout=60, **options
    )


async def _turn(
    client: ClientConnection, on_message: Callable[[], object] = lambda: None
) -> tuple[bytes, list[dict[str, Any]]]:
    """Everything up to ``done`` or ``cancelled``."""
    sound, said = b"", []
    async for message in client:
        on_message()
        if isinstance(message, bytes):
            sound += message
            continue
        said.append(json.loads(message))
        if said[-1]["type"] in ("done", "cancelled"):
            break
    return sound, said


@line("barge-in, at the socket", "2,000 cancels at every phase: 0 frames after `cancelled`")
def cancels(scale: float) -> Reached:
    async def one(port: int, rounds: int, seed: int) -> tuple[int, int]:
        chance, late, parted = random.Random(seed), 0, 0
        backend = ("tone", "babble", "espeak")[seed % 3]
        async with _socket(port, f"/stream-tokens?backend={backend}") as client:
            await client.send(json.dumps({"keep_open": True}))
            assert json.loads(await client.recv())["type"] == "ready"
            for _ in range(rounds):
                sent = ""
                for token in TEXT[: chance.randrange(len(TEXT))].split(" "):
                    sent += token + " "
                    await client.send(json.dumps({"token": token + " "}))
                    if chance.random() < 0.05:
                        await asyncio.sleep(chance.uniform(0, 0.03))
                await client.send(json.dumps({"cancel": True}))
                _, said = await _turn(client)
                assert said[-1]["type"] == "cancelled", said[-1]
                parted += said[-1]["text_spoken"] + said[-1]["text_remaining"] != sent
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.003):
                        late += isinstance(await client.recv(), bytes)
        return late, parted

    async def go() -> Reached:
        rounds = -(-count(2000, scale, 60) // 6)
        with server("tone", "babble", "espeak") as (_, port):
            found = await asyncio.gather(*(one(port, rounds, seed) for seed in range(6)))
        late, parted = (sum(column) for column in zip(*found, strict=True))
        figure = f"{rounds * 6} cancels: {late} frames after, {parted} texts not parted whole"
        return Reached(figure, not late and not parted)

    return _run(go())


@line("SIGTERM under load", "50 streams: 0 truncated, exit ≤ 30 s")
def drain(scale: float) -> Reached:
    answered: set[ClientConnection] = set()

    async def one(port: int) -> bytes:
        async with _socket(port) as client:
            await client.send(
                json.dumps({"token": SENTENCES[0] + " " + SENTENCES[1], "done": True})
            )
            sound, said = await _turn(client, lambda: answered.add(client))
            if [message.get("code") for message in said] == ["draining"]:
                raise ConnectionRefusedError
            return sound if said and said[-1]["type"] == "done" else b""

    async def go() -> Reached:
        with server("tone") as (process, port):
            whole = await one(port)
            answered.clear()
            streams = [asyncio.create_task(one(port)) for _ in range(count(50, scale, 20))]
            async with asyncio.timeout(60):
                while len(answered) <= len(streams) / 2:
                    await asyncio.sleep(0.005)
            before = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            heard = await asyncio.gather(*streams, return_exceptions=True)
            # One that had not even begun was refused, which is no truncation.
            cut = sum(isinstance(one, bytes) and one != whole for one in heard)
            refused = sum(not isinstance(one, bytes) for one in heard)
            await asyncio.to_thread(process.wait, 60)
            took = time.perf_counter() - before
        figure = (
            f"{len(heard)} streams: {cut} truncated, {refused} refused, exit after {took:.1f} s"
        )
        return Reached(figure, not cut and refused < len(heard) / 2, took <= 30)

    return _run(go())


@line("clients that never read", "200 of them: ≤ 256 KB each, gone ≤ 15 s, others' gaps + < 10 %")
def deaf(scale: float) -> Reached:
    async def gaps(port: int) -> list[float]:
        """Between frames that are due, of one listener who reads."""
        found: list[float] = []
        last = [0.0]

        def on_frame(is_binary: bool, payload: bytes) -> None:
            now = time.perf_counter()
            if is_binary and last[0]:
                found.append(now - last[0])
            last[0] = now

        client = await connect(port, "/stream-tokens", on_frame)
        for sentence in SENTENCES:
            client.send(text_frame({"token": sentence + " "}))
            await asyncio.sleep(0.1)
        client.send(text_frame({"done": True}))
        await asyncio.wait_for(client.closed.wait(), 60)
        return found

    async def go() -> Reached:
        crowd = count(200, scale, 20)
        with server("espeak") as (process, port):
            alone = [gap for _ in range(5) for gap in await gaps(port)]
            before = memory_kb(process.pid)
            silent = []
            for _ in range(crowd):
                client = await connect(port, "/stream-tokens", lambda *_: None)
                client.transport.pause_reading()
                client.send(text_frame({"token": TEXT + " " + TEXT, "done": True}))
                silent.append(client)
            started = time.perf_counter()
            await asyncio.sleep(2.0)
            each = max(0, memory_kb(process.pid) - before) / crowd
            beside = [gap for _ in range(5) for gap in await gaps(port)]
            gone = await asyncio.to_thread(_until_gone, port, started)
            for client in silent:
                client.transport.abort()
        figure = f"{crowd}: {each:.0f} KB each, gone after {gone:.1f} s, "
        figure += f"others' p99 gap {p99(alone) * 1e3:.0f} → {p99(beside) * 1e3:.0f} ms"
        quiet = p99(beside) <= 1.1 * p99(alone) + 0.01
        return Reached(figure, gone < 60, each <= 256 and gone <= 15 and quiet)

    return _run(go())


def _until_gone(port: int, started: float) -> float:
    """Seconds until the server counts no connection."""
    import urllib.request

    while time.perf_counter() - started < 60:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        if "voice_server_connections 0.0" in text:
            return time.perf_counter() - started
        time.sleep(0.2)
    return 60.0


@line("a half-open socket", "freed ≤ 45 s; one that is busy and silent is not closed")
def half_open(scale: float) -> Reached:
    # A shorter look shortens the pings too, to what a busy machine still answers in time.
    interval = 20.0 if scale >= 1 else 3.0

    async def go() -> Reached:
        with server("tone", ping_interval=interval, ping_timeout=interval) as (_, port):
            alive = await connect(port, "/stream-tokens?backend=tone", lambda *_: None)
            alive.send(text_frame({"keep_open": True, "token": TEXT * 2}))
            dead = await asyncio.to_thread(_open_raw, port)
            before = time.perf_counter()
            freed = await asyncio.to_thread(_until_closed, dead, 60 + interval)
            took = time.perf_counter() - before
            is_alive = not alive.closed.is_set()
            alive.transport.abort()
        limit = 45 if scale >= 1 else 3 * interval
        figure = f"{'freed' if freed else 'NOT FREED'} after {took:.0f} s, "
        figure += f"the busy one is {'open' if is_alive else 'CLOSED'}"
        return Reached(figure, freed and is_alive, took <= limit)

    return _run(go())


def _open_raw(port: int) -> socket.socket:
    """A WebSocket that answers nothing, not even a ping."""
    client = socket.create_connection(("127.0.0.1", port), 60)
    client.sendall(
        b"GET /stream-tokens HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b" 101 " in client.recv(4096)
    return client


def _until_closed(client: socket.socket, patience: float) -> bool:
    client.settimeout(patience)
    try:
        while client.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@line("floods", "4 M empty fragments, 150,000 one-byte messages, × 20: < 4 MB each, then refused")
def floods(scale: float) -> Reached:
    empty = struct.pack(">BB4s", 0x00, 0x80, b"\0\0\0\0")
    first = struct.pack(">BB4s", 0x01, 0x80, b"\0\0\0\0")
    small = struct.pack(">BB4s1s", 0x81, 0x81, b"\0\0\0\0", b"7")
    token = text_frame({"token": "a"})

    def flood(port: int, head: bytes, unit: bytes, number: int) -> bool:
        """True when the server ended it."""
        with _open_raw(port) as client:
            client.settimeout(60)
            try:
                client.sendall(head)
                piece = unit * 10_000
                for _ in range(max(1, number // 10_000)):
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                return not client.recv(1) or _until_closed(client, 60)
            except OSError:
                return True

    async def go() -> Reached:
        times = count(20, scale, 2)
        fragments = count(4_000_000, scale, 200_000)
        ended, worst = 0, 0.0
        with server("tone") as (process, port):
            for head, unit, number in (
                (first, empty, fragments),
                (b"", small, 150_000),
                (b"", token, 150_000),
            ):
                before = memory_kb(process.pid)
                jobs = [asyncio.to_thread(flood, port, head, unit, number) for _ in range(times)]
                running = asyncio.gather(*jobs)
                while not running.done():
                    worst = max(worst, (memory_kb(process.pid) - before) / times)
                    await asyncio.sleep(0.05)
                ended += sum(running.result())
            async with _socket(port) as client:
                await client.send(json.dumps({"token": "Still here.", "done": True}))
                _, said = await _turn(client)
        figure = f"{ended} of {3 * times} ended, at most {worst / 1024:.1f} MB each, "
        figure += f"then {said[-1]['type']}"
        return Reached(figure, ended == 3 * times and said[-1]["type"] == "done", worst < 4096)

    return _run(go())


@line("text that never ends a sentence", "1 MB: sound on time, joined segments equal the input")
def endless(scale: float) -> Reached:
    async def go() -> Reached:
        words = count(260_000, scale, 10_000)
        text = " ".join(f"w{n % 97}" for n in range(words))
        with server("quick") as (_, port):
            first, sound, said = 0.0, 0, []
            async with _socket(port, max_queue=None) as client:
                before = time.perf_counter()

                async def send() -> None:
                    for at in range(0, len(text), 10_000):
                        await client.send(json.dumps({"token": text[at : at + 10_000]}))
                    await client.send(json.dumps({"done": True}))

                sending = asyncio.create_task(send())
                async for message in client:
                    if isinstance(message, bytes):
                        first = first or time.perf_counter() - before
                        sound += len(message)
                    else:
                        said.append(json.loads(message))
                await sending
        segments = [one["sentence"] for one in said if one["type"] == "generating"]
        is_same = " ".join(" ".join(segments).split()) == text
        longest = max(map(len, segments))
        figure = f"{len(text) / 1e6:.1f} MB: first sound after {first * 1e3:.0f} ms, "
        figure += f"{len(segments)} segments of at most {longest}, text {'whole' if is_same else 'CHANGED'}"
        return Reached(figure, is_same and longest <= 300 and said[-1]["type"] == "done")

    return _run(go())


@line(
    "more work than the pool can do",
    "10 × load: memory flat, refusals < 50 ms, admitted turns without a gap",
)
def overload(scale: float) -> Reached:
    async def one(port: int, everybody: asyncio.Barrier) -> tuple[str, float, int]:
        """(outcome, seconds from the text to the refusal or the end, underruns)"""
        found: list[tuple[str, float, int]] = []

        def on_frame(is_binary: bool, payload: bytes) -> None:
            now = time.perf_counter()
            answer = {"type": "sound"} if is_binary else json.loads(payload)
            if answer["type"] == "error":
                found.append((answer["code"], now - before, 0))
            elif answer["type"] == "done":
                found.append(("done", now - before, answer["stats"]["underruns"]))

        client = await connect(port, "/stream-tokens?backend=babble", on_frame)
        # 80 handshakes would be measured otherwise, and this process makes half of each.
        await everybody.wait()
        before = time.perf_counter()
        client.send(text_frame({"token": TEXT[:120], "done": True}))
        await asyncio.wait_for(client.closed.wait(), 60)
        return found[0] if found else ("closed", 0.0, 0)

    async def go() -> Reached:
        with server("babble") as (process, port):
            await one(port, asyncio.Barrier(1))
            before = memory_kb(process.pid)
            found: list[tuple[str, float, int]] = []
            for _ in range(count(10, scale, 2)):
                everybody = asyncio.Barrier(80)
                found += await asyncio.gather(*(one(port, everybody) for _ in range(80)))
            grown = memory_kb(process.pid) - before
        refusals = [took for outcome, took, _ in found if outcome == "busy"]
        done = [gaps for outcome, _, gaps in found if outcome == "done"]
        figure = f"{len(found)} turns on 8 slots: {len(done)} spoken, {sum(done)} underruns, "
        figure += f"{len(refusals)} refused within {p99(refusals) * 1e3:.0f} ms (p99), memory + {grown / 1024:.1f} MB"
        is_right = len(done) + len(refusals) == len(found) and len(done) >= 8
        is_in_time = not sum(done) and p99(refusals) < 0.05
        return Reached(figure, is_right, is_in_time and grown < 20_000)

    return _run(go())
