"""What a relay costs: the same turns at the server and through the tunnel, in the same run.

    python -m bench.relay [--rounds 300] [--listeners 100] [--backend espeak]

``latency``: from the token that ends a segment to the first frame; turns go to the server and to
its relay by turns, so that a busy moment of the machine falls on both. ``crowd``: listeners in real
time, as in ``bench.streams``. ``upload``: the gaps between the frames of twenty listeners, alone
and while 50 MB cross the tunnel towards the server, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from statistics import median

from bench import servers
from bench.latency import measure
from bench.streams import Listener, run

KEY = "a key for the benchmark"
UPLOAD_BYTES = 50_000_000


@contextlib.contextmanager
def tunnelled(backend: str, workers: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """A server and its relay, connected: the ports of both, the process ids of both."""
    with tempfile.TemporaryDirectory() as folder:
        common = {"VOICE_SERVER_API_KEY": KEY, "VOICE_SERVER_LOG_LEVEL": "ERROR"}
        boxes = {"VOICE_SERVER_RELAY_BOXES": f"home={KEY}", "VOICE_SERVER_RELAY_KEY": KEY}
        env = {**common, **boxes, "VOICE_SERVER_DATA_DIR": f"{folder}/relay"}
        with servers.relay(**env) as (relaying, port):
            env["VOICE_SERVER_DATA_DIR"] = f"{folder}/box"
            flags = (
                "--backend",
                backend,
                "--pool-size",
                workers,
                "--relay",
                f"ws://127.0.0.1:{port}",
            )
            with servers.voice_server(*flags, **env) as (serving, direct):
                while not ask(port, "/api/v1/status")["tunnel_connected"]:
                    time.sleep(0.05)
                yield (direct, port), (serving.pid, relaying.pid)


def ask(port: int, path: str, body: io.BytesIO | None = None, **headers: str) -> dict[str, object]:
    """What the server says, as JSON; also where it refuses."""
    held = {"X-API-Key": KEY, **headers}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, held)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, object] = json.load(answer)
    except urllib.error.HTTPError as exc:
        found = json.load(exc)
    return found


def latency(backend: str, rounds: int) -> list[dict[str, object]]:
    """Rows of a backend: at the server, through the relay, and the difference."""
    rows: list[dict[str, object]] = []
    with tunnelled(backend, "1") as (ports, _):
        for name, gap in (("confirmed", 0.0), ("speculated", 0.05)):
            found: tuple[list[float], list[float]] = [], []
            for _ in range(max(1, rounds // 30)):
                for port, times in zip(ports, found, strict=True):
                    times += asyncio.run(measure(port, 30, gap=gap, api_key=KEY))
            direct, relayed = map(servers.percentiles, found)
            added = {key: round(relayed[key] - direct[key], 3) for key in direct}
            rows += [
                {"what": f"{backend}, {name}, {where}", **figures}
                for where, figures in (("direct", direct), ("relay", relayed), ("added", added))
            ]
    return rows


def crowd(backend: str, count: int) -> list[dict[str, object]]:
    """Listeners at the server, then as many through its relay."""
    rows: list[dict[str, object]] = []
    with tunnelled(backend, "2") as (ports, pids):
        for where, port in zip(("direct", "relay"), ports, strict=True):
            asyncio.run(run(port, 2, None, KEY))
            before = [servers.cpu_seconds(pid) for pid in pids]
            heard = asyncio.run(run(port, count, None, KEY))
            cpu = [servers.cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
            times = [one.first_at - one.asked_at for one in heard if one.first_at]
            rows.append(
                {
                    "what": f"{backend}, {where}",
                    "listeners": count,
                    **servers.percentiles(times),
                    "underruns": sum(one.underruns for one in heard),
                    "errors": sum(len(one.errors) for one in heard),
                    "server_cpu_s": round(cpu[0], 1),
                    "relay_cpu_s": round(cpu[1], 1),
                }
            )
    return rows


def upload(backend: str, count: int = 20) -> list[dict[str, object]]:
    """Listeners through the relay, alone and beside an upload that never pauses."""
    rows: list[dict[str, object]] = []
    with tunnelled(backend, "2") as ((_, port), _):
        asyncio.run(run(port, 2, None, KEY))
        for name, is_uploading in (("alone", False), ("beside 50 MB", True)):
            heard, seconds = asyncio.run(_beside(port, count, is_uploading=is_uploading))
            gaps = [gap for one in heard for gap in one.gaps]
            rows.append(
                {
                    "what": f"{backend}, {name}",
                    "listeners": count,
                    **{f"gap_{key}": value for key, value in servers.percentiles(gaps).items()},
                    "underruns": sum(one.underruns for one in heard),
                    "upload_s": round(seconds, 2),
                }
            )
    return rows


async def _beside(port: int, count: int, *, is_uploading: bool) -> tuple[list[Listener], float]:
    playing = asyncio.create_task(run(port, count, None, KEY))
    seconds = []
    await asyncio.sleep(3.0)
    body = _form(os.urandom(UPLOAD_BYTES))
    while is_uploading and not playing.done():
        started = time.perf_counter()
        await asyncio.to_thread(
            ask, port, "/api/v1/tts/voices/import", io.BytesIO(body),
            **{"Content-Type": "multipart/form-data; boundary=x", "Content-Length": f"{len(body)}"},
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    return await playing, median(seconds) if seconds else 0.0


def _form(data: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.zip"\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--listeners", type=int, default=100)
    parser.add_argument("--backend", default="espeak")
    args = parser.parse_args()
    servers.report("relay-latency", latency("tone", args.rounds) + latency("espeak", args.rounds))
    servers.report("relay-crowd", crowd(args.backend, args.listeners))
    servers.report("relay-upload", upload(args.backend))


if __name__ == "__main__":
    main()
