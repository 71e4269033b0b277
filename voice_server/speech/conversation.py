"""One client of ``/stream-tokens``: its contexts, its limits, and the socket it has just now.

    channel ──messages──▶ reader ──events──▶ Context ──▶ Turn ◀──audio── workers
       ▲                                       │
       └────── writer ◀──── next_message ──────┘

Two tasks serve a socket; text of a turn that goes on is taken where it is read, without the reader.
A socket that drops in the middle of a turn leaves the conversation running; another may take it up.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voice_server.audio.encode import make_encoder
from voice_server.core import wire
from voice_server.core.errors import UNEXPECTED, ProtocolMistake, RequestError, VoiceServerError
from voice_server.speech.budget import Budget
from voice_server.speech.channel import Channel, ChannelClosed, outcome
from voice_server.speech.context import Context
from voice_server.speech.output import Output
from voice_server.speech.route import Route

if TYPE_CHECKING:
    from voice_server.speech.service import SpeechService
    from voice_server.workers.pool import WorkerPool


logger = logging.getLogger(__name__)

# Others get a word in after so many messages, or so much text, of a client that sends without end.
_MESSAGES_AT_ONCE = 32
_CHARS_AT_ONCE = 2_000
# Sound that is ahead of its listener goes in one write, which is a system call and wakes the client
# once; short frames are what somebody waits for.
_FRAMES_AT_ONCE, _UNHURRIED = 8, 4_096
_ALL_SAID = 1000, ""  # how the socket of a conversation closes that came to its end


class Conversation:
    """What a client does wrong is answered on its socket, not raised."""

    def __init__(
        self, service: SpeechService, tenant: str, defaults: wire.Configure, door: str
    ) -> None:
        """``defaults``: what holds where the client configures nothing."""
        self.session = secrets.token_urlsafe(16)
        self.tenant = tenant
        self._door = door
        self._service = service
        self._limits = service.limits
        self._loop = asyncio.get_running_loop()
        self._config = defaults
        self._is_configured = False
        self._contexts: dict[str | None, Context] = {}
        self._has_said = False  # a context came to its end
        self._is_taking = False  # a message with text is on its way to its context
        self._output = Output(self._limits.resume_bytes)
        self._channel: Channel | None = None
        self._wake = asyncio.Event()
        self._urgent: deque[str | bytes] = deque()  # goes before everything the contexts say
        self._closing: tuple[int, str] | None = None
        self._resume: wire.Resume | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # of the socket it has just now
        self._active_at = self._loop.time()
        self._budget = Budget(service.limits, self._active_at)
        self._sending_since: float | None = None

    # -- one socket ------------------------------------------------------------------------------

    async def run(self, channel: Channel) -> wire.Resume | None:
        """Serve the client on ``channel`` until it is gone or the conversation is over.

        Returns what the first message asked to resume instead, if it did.
        """
        self._channel = channel
        self._active_at = self._loop.time()
        channel.listen(self._take_token)
        reader = asyncio.create_task(self._read(channel))
        writer = asyncio.create_task(self._write(channel))
        self._tasks = {reader, writer}
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            # A reader that ended by itself has said why in the closing; let that be sent. Where all
            # was said, it may be long, and only the client's goodbye shows that it was received.
            deadline = self._limits.send_deadline
            if self._closing is not None and not writer.done():
                await asyncio.wait({writer}, timeout=None if self._is_said else deadline)
            if self._is_said and self._output.is_resumable:
                await asyncio.wait({reader}, timeout=deadline)
        finally:
            gone = [await outcome(reader), await outcome(writer)]
            if self._channel is channel:
                self._detach(said_goodbye=any(exc is not None and exc.is_clean for exc in gone))
        return self._resume

    async def _read(self, channel: Channel) -> None:
        try:
            while self._closing is None and self._resume is None:
                chars = 0
                for _ in range(_MESSAGES_AT_ONCE):
                    raw = await channel.receive()
                    chars += len(raw)
                    self._active_at = self._loop.time()
                    self._budget.charge(raw, self._active_at)
                    await self._take_all(*wire.parse(raw))
                    is_over = self._closing is not None or self._resume is not None
                    if is_over or chars > _CHARS_AT_ONCE:
                        break
                await asyncio.sleep(0)
            # All was said, maybe to an earlier socket: how the client leaves is yet to be heard.
            while self._is_said:
                await channel.receive()
        except ChannelClosed:
            raise
        except VoiceServerError as exc:
            if self._closing is None:  # else it was refused while something was awaited
                self._refuse(exc)
        except Exception:
            self._give_up()

    def _take_token(self, raw: str) -> bool:
        """Take a message as it comes, if it is what most are: text of a turn that goes on."""
        context, closing = self._contexts.get(None), self._closing
        if closing is not None or context is None or not self._is_current(context.route):
            return False
        if (token := wire.parse_token(raw)) is None or len(token.text) > _CHARS_AT_ONCE:
            return False
        self._active_at = self._loop.time()
        try:
            self._budget.charge(raw, self._active_at)
            context.speak(token)
        except VoiceServerError as exc:
            self._refuse(exc)
        except Exception:
            self._give_up()
        return True

    async def _write(self, channel: Channel) -> None:
        left = _FRAMES_AT_ONCE
        while True:
            if left == 0:
                await asyncio.sleep(0)  # a send does not wait, nor let others run, by itself
                left = _FRAMES_AT_ONCE
            try:
                messages = self._next_messages(left)
            except Exception:
                self._give_up()
                continue
            if messages:
                self._sending_since = self._loop.time()
                await channel.send(*messages)
                self._sending_since = None
                left -= len(messages)
            elif self._closing is not None:
                await channel.close(*self._closing)
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _give_up(self) -> None:
        """A fault of ours: nobody shall wait for what does not come."""
        logger.exception("a conversation failed")
        self._refuse(VoiceServerError(UNEXPECTED))

    def _next_messages(self, most: int) -> list[str | bytes]:
        """What to send next in one go: up to the first that cannot wait for others, or nothing."""
        found: list[str | bytes] = []
        while len(found) < most and (message := self._next_message()) is not None:
            found.append(message)
            if not isinstance(message, bytes) or len(message) < _UNHURRIED:
                break
        return found

    def _next_message(self) -> str | bytes | None:
        if self._urgent:
            return self._urgent.popleft()
        for name, context in list(self._contexts.items()):
            message = context.next_message()
            if context.is_over:
                del self._contexts[name]
                self._has_said = True
                self._close_once_said()
            elif message is not None and len(self._contexts) > 1:
                # The next message comes from another context, if one has something to say.
                self._contexts[name] = self._contexts.pop(name)
            if message is not None:
                return message
        return None

    # -- what the client says --------------------------------------------------------------------

    async def _take_all(self, name: str | None, events: list[wire.Event]) -> None:
        """The events of one message: it may configure, which can take its time, and then speak."""
        self._is_taking = any(isinstance(event, wire.Token) for event in events)
        try:
            for event in events:
                await self._take(name, event)
        finally:
            self._is_taking = False
        self._close_once_said()

    async def _take(self, name: str | None, event: wire.Event) -> None:
        match event:
            case wire.Token() | wire.Flush() | wire.Done():
                context = self._contexts.get(name) or self._open(name, self._config)
                if context.route is None:
                    context.route = await self._route(context.config)
                elif not self._is_current(context.route):
                    await self._find_voice_again(context, context.route)
                for part in _parts(event):
                    context.speak(part)
                    if part is not event:
                        await asyncio.sleep(0)
            case wire.Configure():
                await self._configure(name, event)
            case wire.Preempt():
                for other, context in self._contexts.items():
                    if other != name and (context.is_speaking or context.is_heard):
                        context.cancel(wire.Cancel())
            case wire.Cancel():
                (self._contexts.get(name) or self._open(name, self._config)).cancel(event)
            case wire.Played():
                if known := self._contexts.get(name):
                    known.played(event)

    async def _configure(self, name: str | None, config: wire.Configure) -> None:
        is_first = not self._is_configured
        if config.resume is not None:
            if not is_first:
                raise ProtocolMistake("resume must be the first message of a socket")
            self._resume = config.resume
            return
        if is_first:
            # The query parameters fill in what the first message leaves open.
            config = self._config = self._config.changed_by(config)
            self._output.framing = config.framing
            self._output.is_resumable = config.is_extended
            context = self._open(name, config)
        else:
            self._check_reconfiguration(name, config)
            known = self._contexts.get(name)
            config = (known.config if known else self._config).changed_by(config)
            context = known or self._open(name, config)
        if config.format != wire.AudioFormat():
            # Whether there is such a format. The first of its kind imports a library.
            await asyncio.to_thread(make_encoder, config.format.encoding, config.format.sample_rate)
        route = await self._route(config)
        context.config, context.route = config, route
        if config.is_extended:
            context.tell(self._ready(config, route))

    async def _route(self, config: wire.Configure) -> Route:
        return await self._service.route(config, self.tenant, self._door)

    def _is_current(self, route: Route | None) -> bool:
        """Neither the catalogue nor the workers are others since its voice was found."""
        service = self._service
        return (
            route is not None
            and route.catalogue_version == service.catalogue.version
            and route.pool is service.pools[route.backend]
        )

    async def _find_voice_again(self, context: Context, before: Route) -> None:
        """Between two turns: a voice may have other recordings since the last, or be gone, and the
        model may have been unloaded.
        """
        if not context.is_speaking:
            route = await self._route(context.config)
            context.route = replace(route, seed=before.seed)

    def _check_reconfiguration(self, name: str | None, config: wire.Configure) -> None:
        if config.framing not in ("raw", self._config.framing):
            raise ProtocolMistake("framing is chosen by the first message of a socket")
        known = self._contexts.get(name)
        if known is None and name is not None:
            return
        if known is None or known.is_speaking or known.has_ended or not known.config.keep_open:
            raise ProtocolMistake(
                "this was configured already; configure once, before the first token, "
                "or between the turns of a socket with keep_open"
            )

    def _ready(self, config: wire.Configure, route: Route) -> dict[str, Any]:
        return {
            "type": "ready",
            "session": self.session,
            "backend": route.backend,
            "voice": route.voice_name,
            "sample_rate": config.format.sample_rate,
            "encoding": config.format.encoding,
            "protocol": wire.PROTOCOL,
        }

    def _open(self, name: str | None, config: wire.Configure) -> Context:
        if name is not None and self._output.framing != "msgpack":
            raise ProtocolMistake(
                'contexts need {"framing": "msgpack"} in the first message of the socket'
            )
        limit = self._limits.max_contexts
        if name not in self._contexts and len(self._contexts) >= limit:
            for idle in [key for key, known in self._contexts.items() if known.is_idle]:
                del self._contexts[idle]
            if len(self._contexts) >= limit:
                raise RequestError(
                    f"more than {limit} contexts speak on this socket; end one with done, "
                    "or open another socket",
                    code="too_many_contexts",
                )
        self._is_configured = True
        context = Context(name, config, self._service, self._output, self._wake.set)
        self._contexts[name] = context
        return context

    # -- the end, and what may come after --------------------------------------------------------

    def _close_once_said(self) -> None:
        waits = self._is_taking or any(one.is_awaited for one in self._contexts.values())
        if self._has_said and not waits and self._closing is None:
            self._closing = _ALL_SAID
            self._wake.set()

    @property
    def _is_said(self) -> bool:
        return self._closing == _ALL_SAID

    @property
    def is_speaking(self) -> bool:
        return any(context.is_speaking for context in self._contexts.values())

    @property
    def turns(self) -> int:
        """Turns that are not over."""
        return sum(context.turns for context in self._contexts.values())

    def speaks_on(self, pool: WorkerPool) -> bool:
        """Whether a turn of this client is being spoken by ``pool``."""
        return any(
            context.is_speaking and context.route is not None and context.route.pool is pool
            for context in self._contexts.values()
        )

    def end(self, error: VoiceServerError) -> None:
        """The server gives up on this client: tell it why, and close."""
        if self._channel is None:
            return self.close()  # there is nobody to tell
        if self._closing is None:
            self._refuse(error)
        if self._sending_since is not None:
            self._leave()  # it does not read, so there is no way to tell it anything

    def check(self, now: float) -> None:
        """Enforce this client's deadlines; called a few times a second."""
        limits = self._limits
        if self._sending_since is not None and now - self._sending_since > limits.send_deadline:
            if self._output.is_resumable:  # in a tunnel, perhaps, and it will come back
                self._service.metrics.refused.labels("not_reading").inc()
                self._leave()
            else:
                self.end(RequestError("the client does not read", code="not_reading"))
        elif not all(context.is_quiet for context in self._contexts.values()):
            self._active_at = now
        elif self._channel is not None and now - self._active_at > limits.idle_timeout:
            self.end(RequestError("idle for too long; connect again", code="idle_timeout"))

    def close(self) -> None:
        """Forget the client; free what its turns hold."""
        for context in self._contexts.values():
            context.end()
        self._service.forget(self)

    async def resume(self, channel: Channel, samples: int) -> None:
        """Go on, on another socket, after ``samples`` samples. Raises ResumeFailed."""
        replay = self._output.since(samples)
        # The old socket is half open: nobody will miss it.
        self._channel = channel
        self._leave()
        await asyncio.wait(self._tasks, timeout=1.0)
        if self._channel is not channel:
            return  # the client has come by yet another socket meanwhile
        characters = sum(context.characters for context in self._contexts.values())
        resumed = {"type": "resumed", "session": self.session, "samples": samples}
        first = self._output.message(None, {**resumed, "characters": characters})
        self._urgent = deque([first, *replay])
        self._wake.set()
        await self.run(channel)

    @property
    def kept_bytes(self) -> int:
        """Memory of what was sent, held for a client that may come back."""
        return self._output.kept_bytes

    def _refuse(self, error: VoiceServerError) -> None:
        self._service.metrics.refused.labels(error.code).inc()
        for context in self._contexts.values():
            context.end(error)
        self._urgent.append(self._output.message(None, wire.error_message(error)))
        self._closing = error.close_code, error.code
        self._wake.set()

    def _leave(self) -> None:
        """Serve the socket that it has just now no longer."""
        for task in self._tasks:
            task.cancel()

    def _detach(self, *, said_goodbye: bool) -> None:
        self._channel = None
        self._sending_since = None
        was_refused = self._closing is not None and not self._is_said
        # What was sent last may be lost on its way, also when all was said.
        is_worth_keeping = self.is_speaking or self._output.kept_bytes
        if said_goodbye or was_refused or not self._output.is_resumable or not is_worth_keeping:
            self.close()
        else:
            self._service.keep(self)


def _parts(event: wire.Token | wire.Flush | wire.Done) -> list[wire.Token | wire.Flush | wire.Done]:
    """A long text as several: it may be cut anywhere."""
    if not isinstance(event, wire.Token) or len(event.text) <= _CHARS_AT_ONCE:
        return [event]
    starts = range(0, len(event.text), _CHARS_AT_ONCE)
    return [wire.Token(event.text[start : start + _CHARS_AT_ONCE]) for start in starts]
