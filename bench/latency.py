"""From the token that ends a segment to the first frame at a WebSocket client.

    python -m bench.latency [--rounds 300]

``confirmed``: one message holds the sentence and the beginning of the next, so that everything
lies between: parse, segment, worker process, synthesis, socket. ``speculated``: the sentence came
50 ms before the token that confirms it, as from a language model. The baseline is a bare uvicorn
WebSocket that answers at once with as many bytes, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from bench import servers
from bench.ws import connect, path, text_frame

# Sixty characters, so that eSpeak NG speaks for about four seconds.
SENTENCE = "The quick brown fox jumps over the lazy dog beside the river."
FIRST_FRAME_BYTES = 960


async def measure(port: int, rounds: int, *, gap: float, api_key: str = "") -> list[float]:
    """Seconds to the first frame, one turn after another on one socket."""
    heard = asyncio.Event()
    ended = asyncio.Event()

    def on_frame(is_binary: bool, payload: bytes) -> None:
        if is_binary and not heard.is_set():
            times.append(time.perf_counter())
            heard.set()
        elif not is_binary and (b'"cancelled"' in payload or b'"done"' in payload):
            ended.set()

    times: list[float] = []
    found = []
    socket = await connect(port, path("/stream-tokens", api_key), on_frame)
    socket.send(text_frame({"keep_open": True}))
    cancel = text_frame({"cancel": True})
    for turn in range(rounds + 10):
        heard.clear()
        ended.clear()
        times.clear()
        if gap:
            socket.send(text_frame({"token": SENTENCE}))
            await asyncio.sleep(gap)
            token = text_frame({"token": " And"})
        else:
            token = text_frame({"token": SENTENCE + " And"})
        start = time.perf_counter()
        socket.send(token)
        await asyncio.wait_for(heard.wait(), 10)
        if turn >= 10:  # the first ones warm up
            found.append(times[0] - start)
        socket.send(cancel)
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.sleep(0.02)
    socket.transport.close()
    return found


async def measure_baseline(port: int, rounds: int) -> list[float]:
    heard = asyncio.Event()
    found = []

    def on_frame(is_binary: bool, payload: bytes) -> None:
        heard.set()

    socket = await connect(port, "/", on_frame)
    for turn in range(rounds + 10):
        heard.clear()
        start = time.perf_counter()
        socket.send(text_frame({"say": FIRST_FRAME_BYTES, "text": SENTENCE}))
        await asyncio.wait_for(heard.wait(), 10)
        if turn >= 10:
            found.append(time.perf_counter() - start)
        await asyncio.sleep(0.02)
    socket.transport.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    rows: list[dict[str, object]] = []
    with servers.baseline() as (_, port):
        rows.append(
            {"what": "bare uvicorn socket",
             **servers.percentiles(asyncio.run(measure_baseline(port, rounds)))}
        )  # fmt: skip
    for backend in ("tone", "espeak"):
        started = time.perf_counter()
        with servers.voice_server("--backend", backend) as (_, port):
            ready = time.perf_counter() - started
            for name, gap in (("confirmed", 0.0), ("speculated", 0.05)):
                found = asyncio.run(measure(port, rounds, gap=gap))
                row = {"what": f"{backend}, {name}", **servers.percentiles(found)}
                rows.append({**row, "start_to_ready_s": round(ready, 2)})
    servers.report("latency", rows)


if __name__ == "__main__":
    main()
