"""One client of the Wyoming door: its events in, sound and texts out.

    events ──▶ reader ──▶ Utterance, Hearing ──▶ answers, one after the other ──▶ events

The reader never waits for an answer, so that a client that leaves is noticed at once, in the
middle of a word. What goes wrong is told as ``error``, and ends the connection: Home Assistant
waits for the end of the sound until then.
"""

from __future__ import annotations

import asyncio
import io
import logging
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

from starlette.datastructures import State

from voice_server.audio.formats import SOURCE_RATE
from voice_server.control.samples import plain_wav
from voice_server.control.transcription import Transcriber
from voice_server.core import wire
from voice_server.core.delivery import Frame
from voice_server.core.errors import ProtocolMistake, RequestError, TooLarge, VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.web.wyoming.framing import Event, encoded, read_event
from voice_server.web.wyoming.info import asked_for, info

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 16  # answers that a client may ask for ahead
MAX_SOUND: Final = 16 << 20  # bytes of a recording: eight minutes as assistants record
_SOUND: Final = {"rate": SOURCE_RATE, "width": 2, "channels": 1}
# One tenant: nobody shows a key here, and none of them shall take what keys are given for.
TENANT: Final = "wyoming"


class Utterance:
    """A text to be spoken, while it arrives. Iterating ends with it."""

    def __init__(self, asked: wire.Configure, max_chars: int, *, is_streamed: bool) -> None:
        self.asked = asked
        self.is_streamed = is_streamed
        self._max_chars = max_chars
        self._chars = 0
        self._has_words = False
        self._parts: asyncio.Queue[str | None] = asyncio.Queue()

    def add(self, text: str) -> None:
        """Raises TooLarge."""
        self._chars += len(text)
        if self._chars > self._max_chars:
            raise TooLarge(f"a text has at most {self._max_chars} characters; send several")
        self._has_words = self._has_words or not text.isspace()
        self._parts.put_nowait(text)

    def end(self) -> None:
        self._parts.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self._parts.get()) is not None:
            yield text
        if not self._chars or not self._has_words:
            raise RequestError("text › expected something to say", code="no_text")


class Hearing:
    """Sound to be written down, while it arrives: PCM of one kind."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._pcm = bytearray()
        self._kind: tuple[int, int, int] | None = None

    def begin(self, event: Event) -> None:
        """Its format. Raises RequestError."""
        rate, width = event.value("rate", int), event.value("width", int)
        channels = event.value("channels", int)
        if not (4_000 <= rate <= 192_000 and width in (1, 2, 3, 4) and channels in (1, 2)):
            raise RequestError("audio › expected 4 to 192 kHz, 1 to 4 bytes, 1 or 2 channels")
        if self._kind not in (None, (rate, width, channels)):
            raise ProtocolMistake("audio › one recording has one format")
        self._kind = rate, width, channels

    def add(self, event: Event) -> None:
        """Raises RequestError, TooLarge."""
        self.begin(event)
        self._pcm += event.payload
        if len(self._pcm) > MAX_SOUND:
            raise TooLarge(f"a recording has at most {MAX_SOUND} bytes")

    def wav(self) -> bytes:
        """All of it. Raises RequestError where nothing came."""
        if self._kind is None or not self._pcm:
            raise RequestError("audio › expected some before audio-stop", code="audio_too_short")
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            rate, width, channels = self._kind
            out.setframerate(rate)
            out.setsampwidth(width)
            out.setnchannels(channels)
            out.writeframes(self._pcm)
        return file.getvalue()


class Connection:
    """``state`` holds ``speech`` and ``transcriber``; see web/app.py."""

    def __init__(
        self,
        state: State,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._service: SpeechService = state.speech
        self._transcriber: Transcriber = state.transcriber
        self._reader = reader
        self._writer = writer
        self._answers: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(MAX_WAITING)
        self._waiting = 0
        self._sent_at = asyncio.get_running_loop().time()
        self._utterance: Utterance | None = None  # whose text arrives
        self._hearing: Hearing | None = None

    async def run(self) -> None:
        """Serve the client until it is gone."""
        reading = asyncio.create_task(self._read())
        answering = asyncio.create_task(self._answer())
        try:
            done, _ = await asyncio.wait({reading, answering}, return_when="FIRST_COMPLETED")
            for task in done:
                await task
        except VoiceServerError as exc:
            answering.cancel()
            with suppress(asyncio.CancelledError, OSError, VoiceServerError):
                await answering
            await self._refuse(exc)
        except OSError:
            pass  # the client is gone, or does not read
        except Exception:
            logger.exception("a Wyoming client could not be served")
            await self._refuse(VoiceServerError("something went wrong; the server's log says what"))
        finally:
            for task in (reading, answering):
                task.cancel()
            await asyncio.gather(reading, answering, return_exceptions=True)

    # -- in --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        limits = self._service.limits
        while True:
            try:
                event = await read_event(
                    self._reader, idle=limits.idle_timeout, patience=limits.send_deadline
                )
            except TimeoutError:
                if self._waiting and not self._is_abandoned:
                    continue  # it listens
                raise RequestError(
                    "idle for too long; connect again", code="idle_timeout"
                ) from None
            if event is None:
                return
            await self._take(event)
            await asyncio.sleep(0)  # what is there already is read without waiting

    @property
    def _is_abandoned(self) -> bool:
        """A text that has not ended, and of which nothing is heard: it holds a turn for nobody."""
        silent = asyncio.get_running_loop().time() - self._sent_at
        return self._utterance is not None and silent >= self._service.limits.idle_timeout

    async def _take(self, event: Event) -> None:
        match event.kind:
            case "describe":
                await self._ask(self._describe)
            case "ping":
                text = event.data.get("text")
                await self._send(Event("pong", {"text": text} if isinstance(text, str) else {}))
            case "synthesize":
                # Sent beside the stream for servers that know no streams.
                if self._utterance is None:
                    utterance = await self._begin(event, is_streamed=False)
                    utterance.add(event.value("text", str))
                    utterance.end()
            case "synthesize-start":
                if self._utterance is not None:
                    raise ProtocolMistake("synthesize-start: end the last text first, with -stop")
                self._utterance = await self._begin(event, is_streamed=True)
            case "synthesize-chunk" | "synthesize-stop" if self._utterance is None:
                raise ProtocolMistake(f"{event.kind} without synthesize-start")
            case "synthesize-chunk":
                assert self._utterance is not None
                self._utterance.add(event.value("text", str))
            case "synthesize-stop":
                assert self._utterance is not None
                self._utterance.end()
                self._utterance = None
            case "transcribe":
                self._hearing = Hearing(event.value("language", str, ""))
            case "audio-start":
                self._hearing = self._hearing or Hearing("")
                self._hearing.begin(event)
            case "audio-chunk" if self._hearing is not None:
                self._hearing.add(event)
            case "audio-stop" if self._hearing is not None:
                hearing, self._hearing = self._hearing, None
                await self._ask(lambda: self._transcribe(hearing))
            case _:
                pass  # what it does not know, a server drops: so the protocol grows

    async def _begin(self, event: Event, *, is_streamed: bool) -> Utterance:
        asked = asked_for(self._service, event)
        limit = self._service.limits.max_turn_chars
        utterance = Utterance(asked, limit, is_streamed=is_streamed)
        await self._ask(lambda: self._speak(utterance))
        return utterance

    async def _ask(self, answer: Callable[[], Awaitable[None]]) -> None:
        if self._utterance is not None and self._answers.full():
            # Its answer waits for text that nobody would read.
            raise ProtocolMistake(f"more than {MAX_WAITING} requests within a text; end it first")
        self._waiting += 1
        await self._answers.put(answer)

    # -- out -------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        while True:
            answer = await self._answers.get()
            await answer()
            self._waiting -= 1

    async def _describe(self) -> None:
        for backend in self._service.pools:
            await self._service.known(backend)
        has_transcriber = await asyncio.to_thread(self._transcriber.is_installed)
        await self._send(info(self._service, has_transcriber=has_transcriber))

    async def _speak(self, utterance: Utterance) -> None:
        has_begun = False
        spoken = self._service.speak(
            utterance, utterance.asked, TENANT, is_live=True, door="wyoming"
        )
        async with aclosing(spoken) as items:
            async for item in items:
                if not has_begun and (isinstance(item, Frame) or item["type"] == "done"):
                    has_begun = True
                    await self._send(Event("audio-start", {**_SOUND, "timestamp": 0}))
                if isinstance(item, Frame):
                    at = round(item.offset * 1000 / SOURCE_RATE)
                    await self._send(Event("audio-chunk", {**_SOUND, "timestamp": at}, item.pcm))
                elif item["type"] == "error":
                    # A segment: the turn goes on behind it.
                    await self._send(Event("error", {"text": item["msg"], "code": item["code"]}))
        await self._send(Event("audio-stop"))
        if utterance.is_streamed:
            await self._send(Event("synthesize-stopped"))

    async def _transcribe(self, hearing: Hearing) -> None:
        wav, _ = await asyncio.to_thread(plain_wav, hearing.wav())
        told = await self._transcriber.transcribe(wav, hearing.language or None)
        await self._send(Event("transcript", {"text": told.text, "language": told.language}))

    async def _send(self, event: Event) -> None:
        """Raises OSError when the client is gone, or does not read."""
        self._writer.write(encoded(event))
        async with asyncio.timeout(self._service.limits.send_deadline):  # TimeoutError: an OSError
            await self._writer.drain()
        self._sent_at = asyncio.get_running_loop().time()
        await asyncio.sleep(0)  # a send does not wait, nor let others run, by itself

    async def _refuse(self, error: VoiceServerError) -> None:
        self._service.metrics.refused.labels(error.code).inc()
        with suppress(OSError):
            await self._send(Event("error", {"text": str(error), "code": error.code}))
