"""A user who interrupts: python examples/barge_in.py [URL]

One socket, two turns. The first answer is cut off after 1.5 seconds; the server says which of its
words were heard, and that is what the model should remember of what it said.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import ClientConnection, connect

URL = "ws://localhost:8000/stream-tokens"
ANSWER = (
    "The train leaves at nine in the morning. It stops at three stations on the way. "
    "You will arrive shortly before noon if nothing goes wrong. Shall I book two seats for you?"
)
HEARD_AFTER = 1.5  # seconds of sound after which the user speaks


class Listener:
    """Stands for your sound device: it plays in real time from the first frame on."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds = 0.0

    def hear(self, pcm: bytes) -> None:
        if self.began is None:
            self.began = time.monotonic()
        self.seconds += len(pcm) / 2 / 24_000

    @property
    def played(self) -> float:
        return 0.0 if self.began is None else min(self.seconds, time.monotonic() - self.began)


async def say(socket: ClientConnection, text: str) -> None:
    """Stands for your model, which writes faster than people speak."""
    for word in text.split(" "):
        await socket.send(json.dumps({"token": word + " "}))
        await asyncio.sleep(0.1)
    await socket.send(json.dumps({"done": True}))


async def listen(socket: ClientConnection, listener: Listener) -> dict:
    """Hear the turn to its end, whichever end that is. Returns the last message."""
    async for message in socket:
        if isinstance(message, bytes):
            listener.hear(message)
        elif (last := json.loads(message))["type"] in ("done", "cancelled"):
            return last
    raise SystemExit("the server closed the socket")


async def interrupt(
    socket: ClientConnection, listener: Listener, speaking: asyncio.Task[None]
) -> None:
    """What your voice activity detection does when the user begins to speak."""
    while listener.played < HEARD_AFTER:
        await asyncio.sleep(0.01)
    # In this order: silence your sound device (nothing is faster), stop the model, tell the server.
    # A token that were sent after the cancel would begin the next turn.
    played_ms = round(listener.played * 1000)
    speaking.cancel()
    await socket.send(json.dumps({"cancel": True, "played_ms": played_ms}))


async def main(url: str = URL) -> None:
    async with connect(url) as socket:
        await socket.send(json.dumps({"keep_open": True}))
        speaking = asyncio.create_task(say(socket, ANSWER))
        listener = Listener()
        interrupting = asyncio.create_task(interrupt(socket, listener, speaking))
        end = await listen(socket, listener)
        await interrupting
        print(f"heard ({end['played_ms']} ms):  {end['text_spoken']!r}")
        print(f"not heard:        {end['text_remaining']!r}")

        await asyncio.gather(say(socket, "All right, I am listening."), listen(socket, Listener()))
        print("and the second turn was spoken on the same socket")


asyncio.run(main(*sys.argv[1:2]))
