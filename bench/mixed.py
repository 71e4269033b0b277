"""Many listeners at all doors at once, in real time: time to first audio, and gaps.

    python -m bench.mixed [--connections 200] [--pool-size 2]

The doors share the connections evenly. At a socket a listener sends six sentences as a language
model would, as in bench.streams; over HTTP all of them at once. Each plays what it gets on a clock
of its own, and stays until it has nearly all of it: sound that comes after the sound before it has
ended is an underrun.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import servers
from bench.streams import BYTES_PER_SECOND, TEXT, Listener, summary, written
from bench.ws import connect, text_frame

VOICE = "en-us"
WHOLE = 0.98  # of a text's sound: encoders and resamplers differ at its ends
PATIENCE = 120.0
Message = Mapping[str, object]


@dataclass(frozen=True)
class Line:
    """A door that is a socket. ``say`` makes a message of a token.

    ``key`` stands before sound in base64, "" where sound is binary; ``rate``: bytes a second.
    """

    path: str
    say: Callable[[str], Message]
    opening: tuple[Message, ...] = ()
    closing: tuple[Message, ...] = ()
    key: str = ""
    rate: int = BYTES_PER_SECOND

    async def listen(self, port: int, listener: Listener, whole: int) -> None:
        def on_frame(is_binary: bool, payload: bytes) -> None:
            if is_binary and not self.key:
                listener.hear(len(payload) * BYTES_PER_SECOND // self.rate)
            elif self.key and (size := base64_size(payload, self.key)):
                listener.hear(size)
            elif is_error(payload):
                listener.errors.append(payload)

        line = await connect(port, self.path, on_frame)
        for message in self.opening:
            line.send(text_frame(message))
        async for token in written(listener):
            if listener.errors or line.closed.is_set():
                break
            line.send(text_frame(self.say(token)))
        for message in self.closing if not line.closed.is_set() else ():
            line.send(text_frame(message))
        await heard(listener, whole, line.closed)
        line.transport.close()


@dataclass(frozen=True)
class Post:
    """A door over HTTP. ``key``: as with a Line; then each line of the body is a message."""

    path: str
    body: Message
    key: str = ""

    async def listen(self, port: int, listener: Listener, whole: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(self.body).encode()
        listener.asked_at = time.perf_counter()
        writer.write(
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                listener.errors.append(head)
                return
            line = b""
            while size := int(await reader.readline(), 16):
                data = (await reader.readexactly(size + 2))[:-2]
                if not self.key:
                    listener.hear(len(data))
                    continue
                *lines, line = (line + data).split(b"\n")
                for one in lines:
                    if found := base64_size(one, self.key):
                        listener.hear(found)
        finally:
            writer.transport.abort()


@dataclass(frozen=True)
class Wyoming:
    """The door of Home Assistant; ``port`` is its own."""

    port: int

    async def listen(self, port: int, listener: Listener, whole: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        listening = asyncio.create_task(self._hear(reader, listener))
        writer.write(_event("synthesize-start", voice={"name": VOICE}))
        async for token in written(listener):
            if listener.errors:
                break
            writer.write(_event("synthesize-chunk", text=token))
        writer.write(_event("synthesize-stop"))
        await listening
        writer.transport.abort()

    async def _hear(self, reader: asyncio.StreamReader, listener: Listener) -> None:
        kind = ""
        while kind not in ("synthesize-stopped", "error"):
            header = json.loads(await reader.readline())
            kind = header["type"]
            data = await reader.readexactly(header.get("data_length") or 0)
            sound = await reader.readexactly(header.get("payload_length") or 0)
            if sound:
                listener.hear(len(sound))
            if kind == "error":
                listener.errors.append(data)


def _event(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode() + b"\n"


def base64_size(message: bytes, key: str) -> int:
    """The bytes of sound in a JSON message, without parsing it."""
    found = re.search(rb'"%s": ?"([\w+/]*)' % key.encode(), message)
    return len(found[1]) * 3 // 4 if found else 0


def is_error(message: bytes) -> bool:
    return b'"error"' in message or b'"Error"' in message


async def heard(listener: Listener, size: int, closed: asyncio.Event) -> None:
    """Wait until so many bytes of sound are there, or nothing more will come."""
    while listener.sound < size and not listener.errors and not closed.is_set():
        await asyncio.sleep(0.1)
    if listener.sound < size and not listener.errors:
        listener.errors.append(b"closed before its end")


def doors(wyoming: int) -> dict[str, Line | Post | Wyoming]:
    """Every door that speaks, by name. ``wyoming``: the port of that one."""
    speech = f"/v1/text-to-speech/{VOICE}"
    pcm = "output_format=pcm_24000"
    linear = f"/speak?model={VOICE}&encoding=linear16&sample_rate=24000&container=none"
    cartesia = {
        "model_id": "sonic-3",
        "voice": {"mode": "id", "id": VOICE},
        "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
        "add_timestamps": True,
    }
    context = {**cartesia, "context_id": "a"}
    flushed = {"context_id": "a", "flush": True}
    deepgram = ({"type": "Flush"},)

    def spoken(token: str) -> Message:
        return {"type": "Speak", "text": token}

    return {
        "/stream-tokens": Line(
            "/stream-tokens", lambda token: {"token": token}, ({"voice": VOICE},), ({"done": True},)
        ),
        "deepgram v1": Line(f"/v1{linear}", spoken, (), deepgram),
        "deepgram flux": Line(f"/v2{linear}", spoken, (), deepgram),
        "deepgram, HTTP": Post(f"/v1{linear}", {"text": TEXT}),
        "elevenlabs stream-input": Line(
            f"{speech}/stream-input?{pcm}",
            lambda token: {"text": token},
            ({"text": " "},),
            ({"text": ""},),
            "audio",
        ),
        "elevenlabs multi-stream-input": Line(
            f"{speech}/multi-stream-input?{pcm}",
            lambda token: {"text": token, "context_id": "a"},
            ({"text": " ", "context_id": "a"},),
            (flushed, {"context_id": "a", "close_context": True}),
            "audio",
        ),
        "elevenlabs, HTTP, timestamps": Post(
            f"{speech}/stream/with-timestamps?{pcm}", {"text": TEXT}, "audio_base64"
        ),
        "cartesia": Line(
            "/cartesia/tts/websocket",
            lambda token: {**context, "transcript": token, "continue": True},
            (),
            ({**context, "transcript": "", "continue": False},),
            "data",
        ),
        "cartesia, events": Post("/cartesia/tts/sse", {**cartesia, "transcript": TEXT}, "data"),
        "openai, HTTP": Post(
            "/openai/v1/audio/speech", {"input": TEXT, "voice": VOICE, "response_format": "pcm"}
        ),
        "openai, events": Post(
            "/openai/v1/audio/speech",
            {"input": TEXT, "voice": VOICE, "response_format": "pcm", "stream_format": "sse"},
            "audio",
        ),
        "jambonz, mu-law": Line(
            f"/telephony/jambonz?voice={VOICE}&sample_rate=8000&encoding=ulaw",
            lambda token: {"type": "stream", "text": token},
            (),
            ({"type": "flush"},),
            rate=8_000,
        ),
        "vapi": Post(
            f"/telephony/vapi?voice={VOICE}",
            {"message": {"type": "voice-request", "text": TEXT, "sampleRate": 24_000}},
        ),
        "wyoming": Wyoming(wyoming),
    }


async def measure(port: int, wyoming: int, count: int) -> dict[str, list[Listener]]:
    """Listeners by door. They come at random within two seconds: a crowd, not a parade."""
    first = Listener()
    known = doors(wyoming)
    await known["openai, HTTP"].listen(port, first, 0)
    whole = int(WHOLE * first.sound)
    chance = random.Random(1)
    found: dict[str, list[Listener]] = {name: [] for name in known}

    async def listen(name: str, delay: float) -> None:
        listener = Listener()
        found[name].append(listener)
        await asyncio.sleep(delay)
        try:
            async with asyncio.timeout(PATIENCE):
                await known[name].listen(port, listener, whole)
        except (OSError, EOFError, TimeoutError) as exc:
            listener.errors.append(repr(exc).encode())
        if listener.sound < whole and not listener.errors:
            listener.errors.append(b"too little sound")

    names = [name for name, _ in zip(itertools.cycle(known), range(count), strict=False)]
    await asyncio.gather(*(listen(name, chance.uniform(0, 2)) for name in names))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--pool-size", default="2")
    args = parser.parse_args()
    wyoming = free_port()
    flags = ("--backend", "espeak", "--pool-size", args.pool_size, "--wyoming", str(wyoming))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"VOICE_SERVER_LOG_LEVEL": "WARNING", "VOICE_SERVER_DATA_DIR": folder}
        with servers.voice_server(*flags, **settings) as (_, port):
            found = asyncio.run(measure(port, wyoming, args.connections))
    crowds = {**found, "all": [one for listeners in found.values() for one in listeners]}
    rows = [{"door": name, **summary(crowd)} for name, crowd in crowds.items() if crowd]
    servers.report("mixed", rows)
    for name, listeners in found.items():
        for error in [error for one in listeners for error in one.errors][:3]:
            print(f"{name}: {error[:300].decode(errors='replace')}")


if __name__ == "__main__":
    main()
