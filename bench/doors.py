"""What a vendor's door adds to /stream-tokens, from the text to the first sound.

    python -m bench.doors [--rounds 200]

Every round asks each door once, on a connection that is open already, for the same sentence by
eSpeak NG; so what disturbs one disturbs all. ``added`` is the median of the differences to
/stream-tokens within a round. The doors over HTTP are compared with it too: to the first byte of
the body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import servers
from bench.latency import SENTENCE
from bench.ws import connect, text_frame

WARM_UP = 5
PATIENCE = 10.0
GOODBYE = b"\x88\x80\x00\x00\x00\x00"  # a close frame without a code
VOICE = "en-us"
_CARTESIA = {
    "context_id": "a",
    "model_id": "sonic-2",
    "transcript": SENTENCE,
    "voice": {"mode": "id", "id": VOICE},
    "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
    "continue": False,
}


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


def speech(path: str, **body: Any) -> Post:
    return Post(path, {"voice": VOICE, **body})


OURS = "/stream-tokens"
_EL = f"/v1/text-to-speech/{VOICE}"
_PCM = "output_format=pcm_24000"
_JAMBONZ = f"/telephony/jambonz?voice={VOICE}&sample_rate="
_SPOKEN = ({"type": "stream", "text": SENTENCE}, {"type": "flush"})
DOORS: dict[str, Socket | Post] = {
    OURS: Socket(OURS, ({"voice": VOICE},), ({"token": SENTENCE, "flush": True},), binary),
    # The doors that tell times of words: sound waits until those of its words are known.
    f"{OURS}, timestamps": Socket(
        OURS,
        ({"voice": VOICE, "timestamps": True},),
        ({"token": SENTENCE, "flush": True},),
        binary,
    ),
    "deepgram v1, binary": Socket(
        f"/v1/speak?model={VOICE}&encoding=linear16&sample_rate=24000",
        (),
        ({"type": "Speak", "text": SENTENCE}, {"type": "Flush"}),
        binary,
    ),
    "jambonz, binary, 24 kHz": Socket(
        f"{_JAMBONZ}24000", ({"type": "keepalive"},), _SPOKEN, binary
    ),
    "jambonz, mu-law, 8 kHz": Socket(
        f"{_JAMBONZ}8000&encoding=ulaw", ({"type": "keepalive"},), _SPOKEN, binary
    ),
    "elevenlabs stream-input, base64": Socket(
        f"{_EL}/stream-input?{_PCM}",
        ({"text": " "},),
        ({"text": SENTENCE, "flush": True},),
        base64(b'"audio": "'),
    ),
    "elevenlabs multi-stream-input, base64": Socket(
        f"{_EL}/multi-stream-input?{_PCM}",
        ({"text": " ", "context_id": "a"},),
        ({"text": SENTENCE, "context_id": "a", "flush": True},),
        base64(b'"audio": "'),
    ),
    "cartesia, base64": Socket(
        "/cartesia/tts/websocket", (), (_CARTESIA,), base64(b'"data": "', b'"data":"')
    ),
    "openai speech, pcm": speech("/openai/v1/audio/speech", input=SENTENCE, response_format="pcm"),
    "openai speech, mp3": speech("/openai/v1/audio/speech", input=SENTENCE),
    "elevenlabs convert, pcm": Post(f"{_EL}?{_PCM}", {"text": SENTENCE}),
    "elevenlabs convert, mp3": Post(_EL, {"text": SENTENCE}),
}


async def measure(port: int, rounds: int) -> dict[str, list[float]]:
    """Seconds to the first sound, by door, one figure a round."""
    found: dict[str, list[float]] = {name: [] for name in DOORS}
    for turn in range(rounds + WARM_UP):
        for name, door in DOORS.items():
            seconds = await door.first_sound(port)
            if turn >= WARM_UP:
                found[name].append(seconds)
            await asyncio.sleep(0.02)  # the turn that was left is over
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        # Nobody reads what it logs, and a full pipe would stop it.
        settings = {"VOICE_SERVER_LOG_LEVEL": "WARNING", "VOICE_SERVER_DATA_DIR": folder}
        with servers.voice_server("--backend", "espeak", **settings) as (_, port):
            found = asyncio.run(measure(port, rounds))
    rows: list[dict[str, object]] = []
    for name, seconds in found.items():
        differences = [a - b for a, b in zip(seconds, found[OURS], strict=True)]
        added = round(median(differences) * 1e3, 3)
        rows.append({"door": name, **servers.percentiles(seconds), "added_ms": added})
    servers.report("doors", rows)


if __name__ == "__main__":
    main()
