"""What a vendor's door adds to /stream-tokens, from the text to the first sound.

    python -m bench.doors [--rounds 200] [--hang-ups 20]

Every round asks each door once, on a connection that is open already, for the same sentence by
eSpeak NG; so what disturbs one disturbs all. ``added`` is the median of the differences to
/stream-tokens within a round. The doors over HTTP are compared with it too: to the first byte of
the body.

Then clients of each door go away at the first sound of a long text: how long until no turn and no
slot is busy any more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import servers
from bench.latency import SENTENCE
from bench.ws import connect, text_frame

LONG = "This sentence is said again and again, until somebody hangs up. " * 300
GAUGE = re.compile(rb"^voice_server_(active_turns|slots|slots_free){.*} (\S+)$", re.M)
WARM_UP = 5
PATIENCE = 10.0
GOODBYE = b"\x88\x80\x00\x00\x00\x00"  # a close frame without a code
VOICE = "en-us"


@dataclass(frozen=True)
class Socket:
    """A door that is a WebSocket. ``opening`` goes ahead of the clock, ``asked`` starts it."""

    path: str
    opening: tuple[Mapping[str, Any], ...]
    asked: tuple[Mapping[str, Any], ...]
    is_sound: Callable[[bool, bytes], bool]

    async def first_sound(self, port: int) -> float:
        """Seconds to the first sound."""
        heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def on_frame(is_binary: bool, payload: bytes) -> None:
            if not heard.done() and self.is_sound(is_binary, payload):
                heard.set_result(time.perf_counter())

        socket = await connect(port, self.path, on_frame)
        for message in self.opening:
            socket.send(text_frame(message))
        await asyncio.sleep(0.02)
        frames = b"".join(map(text_frame, self.asked))
        start = time.perf_counter()
        socket.send(frames)
        try:
            return await asyncio.wait_for(heard, PATIENCE) - start
        finally:
            # With a goodbye: our own protocol would keep the turn for whoever comes back.
            socket.send(GOODBYE)
            socket.transport.close()


@dataclass(frozen=True)
class Post:
    """A door over HTTP."""

    path: str
    body: Mapping[str, Any]

    async def first_sound(self, port: int) -> float:
        """Seconds to the first byte of the body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(self.body).encode()
        await asyncio.sleep(0.02)
        start = time.perf_counter()
        writer.write(
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nxi-api-key: none\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head.split(b"\r\n", 1)[0], head
                await reader.readline()  # the length of the first chunk
                await reader.readexactly(1)
            return time.perf_counter() - start
        finally:
            writer.transport.abort()


def binary(is_binary: bool, payload: bytes) -> bool:
    return is_binary


def base64(*beginnings: bytes) -> Callable[[bool, bytes], bool]:
    return lambda is_binary, payload: any(said in payload for said in beginnings)


OURS = "/stream-tokens"


def doors(text: str) -> dict[str, Socket | Post]:
    """Each door, asked for ``text``."""
    speech = f"/v1/text-to-speech/{VOICE}"
    pcm = "output_format=pcm_24000"
    jambonz = f"/telephony/jambonz?voice={VOICE}&sample_rate="
    spoken = ({"type": "stream", "text": text}, {"type": "flush"})
    cartesia = {
        "context_id": "a",
        "model_id": "sonic-2",
        "transcript": text,
        "voice": {"mode": "id", "id": VOICE},
        "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
        "continue": False,
    }
    token = ({"token": text, "flush": True},)
    openai = {"input": text, "voice": VOICE}
    return {
        OURS: Socket(OURS, ({"voice": VOICE},), token, binary),
        # Ours tells words before their sound, which waits for their times; vendors' doors do not.
        f"{OURS}, timestamps": Socket(OURS, ({"voice": VOICE, "timestamps": True},), token, binary),
        "deepgram v1, binary": Socket(
            f"/v1/speak?model={VOICE}&encoding=linear16&sample_rate=24000",
            (),
            ({"type": "Speak", "text": text}, {"type": "Flush"}),
            binary,
        ),
        "jambonz, binary, 24 kHz": Socket(
            f"{jambonz}24000", ({"type": "keepalive"},), spoken, binary
        ),
        "jambonz, mu-law, 8 kHz": Socket(
            f"{jambonz}8000&encoding=ulaw", ({"type": "keepalive"},), spoken, binary
        ),
        "elevenlabs stream-input, base64": Socket(
            f"{speech}/stream-input?{pcm}",
            ({"text": " "},),
            ({"text": text, "flush": True},),
            base64(b'"audio": "'),
        ),
        "elevenlabs multi-stream-input, base64": Socket(
            f"{speech}/multi-stream-input?{pcm}",
            ({"text": " ", "context_id": "a"},),
            ({"text": text, "context_id": "a", "flush": True},),
            base64(b'"audio": "'),
        ),
        "cartesia, base64": Socket(
            "/cartesia/tts/websocket", (), (cartesia,), base64(b'"data": "', b'"data":"')
        ),
        "cartesia, timestamps": Socket(
            "/cartesia/tts/websocket",
            (),
            ({**cartesia, "add_timestamps": True},),
            base64(b'"data": "', b'"data":"'),
        ),
        "openai speech, pcm": Post("/openai/v1/audio/speech", {**openai, "response_format": "pcm"}),
        "openai speech, mp3": Post("/openai/v1/audio/speech", openai),
        "elevenlabs convert, pcm": Post(f"{speech}?{pcm}", {"text": text}),
        "elevenlabs convert, mp3": Post(speech, {"text": text}),
    }


async def idle(port: int) -> None:
    """Wait until no turn is spoken and no worker works."""
    while await is_busy(port):
        await asyncio.sleep(0.001)


async def is_busy(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    told = await reader.read(-1)
    writer.close()
    gauge = {name: float(value) for name, value in GAUGE.findall(told)}
    return gauge[b"active_turns"] > 0 or gauge[b"slots_free"] < gauge[b"slots"]


async def hang_up(port: int, count: int) -> dict[str, list[float]]:
    """Seconds from a client's end to that of its turn, by vendors' door: ours waits for it to come
    back, and may do so for some that were measured before.
    """
    found: dict[str, list[float]] = {}
    await idle(port)
    for name, door in doors(LONG).items():
        for _ in range(0 if name.startswith(OURS) else count):
            await door.first_sound(port)
            start = time.perf_counter()
            await idle(port)
            found.setdefault(name, []).append(time.perf_counter() - start)
    return found


async def measure(port: int, rounds: int) -> dict[str, list[float]]:
    """Seconds to the first sound, by door, one figure a round."""
    known = doors(SENTENCE)
    found: dict[str, list[float]] = {name: [] for name in known}
    for turn in range(rounds + WARM_UP):
        for name, door in known.items():
            seconds = await door.first_sound(port)
            if turn >= WARM_UP:
                found[name].append(seconds)
            await asyncio.sleep(0.02)  # the turn that was left is over
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--hang-ups", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Nobody reads what it logs, and a full pipe would stop it.
        settings = {"VOICE_SERVER_LOG_LEVEL": "WARNING", "VOICE_SERVER_DATA_DIR": folder}
        with servers.voice_server("--backend", "espeak", **settings) as (_, port):
            found = asyncio.run(measure(port, args.rounds))
            freed = asyncio.run(hang_up(port, args.hang_ups))
    rows: list[dict[str, object]] = []
    for name, seconds in found.items():
        differences = [a - b for a, b in zip(seconds, found[OURS], strict=True)]
        added = round(median(differences) * 1e3, 3)
        rows.append({"door": name, **servers.percentiles(seconds), "added_ms": added})
    servers.report("doors", rows)
    rows = [{"door": name, **servers.percentiles(seconds)} for name, seconds in freed.items()]
    servers.report("hang-ups", rows)


if __name__ == "__main__":
    main()
