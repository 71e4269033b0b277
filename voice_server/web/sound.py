"""A turn's sound as the body of an HTTP answer that grows while it is spoken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from voice_server.audio.encode import Encoder, make_encoder
from voice_server.audio.formats import Format
from voice_server.core.delivery import Frame
from voice_server.core.errors import RequestError, TooLarge, VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.web.errors import error_of

logger = logging.getLogger(__name__)

Items = AsyncGenerator[dict[str, Any] | Frame, None]


def check_text(service: SpeechService, text: str, field: str = "text") -> None:
    """Whether a whole text can be a turn. Raises RequestError (``no_text``), TooLarge."""
    if not text.strip():
        raise RequestError(f"{field} › expected something to say", code="no_text")
    if len(text) > service.limits.max_turn_chars:
        raise TooLarge(f"{field} › expected at most {service.limits.max_turn_chars} characters")


async def codec(fmt: Format) -> Encoder:
    """The encoder of a format. Raises UnsupportedFormat."""
    # The first one of its kind imports a library, which takes a moment.
    return await asyncio.to_thread(
        make_encoder, fmt.encoding, fmt.sample_rate, fmt.container, bitrate=fmt.bitrate or None
    )


class Failed(Exception):
    """Speech failed after sound was sent."""


class SpokenTurn(Response):
    """Answers with the status once it is known: with the first sound, or the error before it.

    An error after that breaks the connection off. A client that goes away, or does not read for
    ``deadline`` seconds, ends the turn at once.
    """

    def __init__(
        self,
        items: Items,
        encoder: Encoder,
        deadline: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._items = items
        self._encoder = encoder
        self._deadline = deadline
        # An intermediary that buffers or keeps it would defeat its purpose.
        always = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self.body = b""
        self.init_headers({"Content-Type": encoder.content_type, **always, **(headers or {})})
        del self.headers["content-length"]

    def _render(self, item: dict[str, Any] | Frame) -> bytes:
        """What the body says of a frame, or of a message after the first one."""
        return self._encoder.encode(item.pcm) if isinstance(item, Frame) else b""

    def _finish(self) -> bytes:
        """The end of the body."""
        return self._encoder.finish()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        speaking = asyncio.create_task(self._speak(send))
        watching = asyncio.create_task(_disconnection(receive))
        try:
            await asyncio.wait({speaking, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not speaking.done():
                speaking.cancel()
            with suppress(asyncio.CancelledError, Failed):
                await speaking

    async def _speak(self, send: Send) -> None:
        """Raises VoiceServerError before the first sound, Failed after it."""
        has_begun = False
        async with aclosing(self._items) as items:
            try:
                async for item in items:
                    if isinstance(item, dict) and item["type"] == "error":
                        raise error_of(item)
                    data = self._render(item)
                    if isinstance(item, Frame) and not has_begun:
                        has_begun = True
                        await self._begin(send)
                    if has_begun:
                        await self._send(send, data)
                if not has_begun:
                    raise RequestError("nothing in this text can be spoken", code="no_text")
                await self._send(send, self._finish(), is_last=True)
            except VoiceServerError as exc:
                if not has_begun:
                    raise
                logger.warning("speech broke off: %s (%s)", exc, exc.code)
                raise Failed from exc
            except TimeoutError:
                logger.info("a client did not read for %g s", self._deadline)
                raise Failed from None

    async def _begin(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

    async def _send(self, send: Send, sound: bytes, *, is_last: bool = False) -> None:
        if sound or is_last:
            message = {"type": "http.response.body", "body": sound, "more_body": not is_last}
            async with asyncio.timeout(self._deadline):
                await send(message)
        # A send does not wait, nor let others run, by itself; and encoding takes its time.
        await asyncio.sleep(0)


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
