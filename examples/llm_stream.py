"""An LLM stream, spoken while it is written: python examples/llm_stream.py [URL] [FILE.wav]"""

import asyncio
import json
import sys
import wave
from collections.abc import AsyncIterator

from websockets.asyncio.client import connect

URL = "ws://localhost:8000/stream-tokens"


async def llm() -> AsyncIterator[str]:
    """Put the stream of your model here; the cuts may fall anywhere, also inside a word."""
    for token in "Hel|lo! I am speak|ing while I am still think|ing. Can you hear it?".split("|"):
        yield token
        await asyncio.sleep(0.1)


async def speak(url: str, path: str) -> None:
    async def send() -> None:
        async for token in llm():
            await socket.send(json.dumps({"token": token}))
        await socket.send(json.dumps({"done": True}))

    async with connect(url) as socket, asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        with wave.open(path, "wb") as file:
            file.setparams((1, 2, 24_000, 0, "NONE", ""))  # mono, int16, 24 kHz
            async for message in socket:  # ends when the server has said everything
                if isinstance(message, bytes):
                    file.writeframes(message)
                else:
                    print(json.loads(message))


asyncio.run(speak(*(sys.argv[1:] + [URL, "hello.wav"][len(sys.argv) - 1 :])))
