"""Cartesia's WebSocket, message by message: contexts that speak side by side.

https://docs.cartesia.ai/api-reference/tts/websocket

    generation ─▶ speaking ─▶ continue: false ─▶ ending ─▶ done
                     │  ▲                          │
            flush ───┘  └── flush_done          cancel ─▶ done

A flush ends a turn of ours, and what follows it in the context is the next turn: so ``flush_done``
comes behind the last of its sound. What is wrong with one context is its ``error``, and the others
go on.
"""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from voice_server.core.errors import ProtocolMistake, RequestError, VoiceServerError
from voice_server.speech.service import SpeechService
from voice_server.web.errors import error_of
from voice_server.web.operations import check_json
from voice_server.web.vendors.asking import chosen
from voice_server.web.vendors.cartesia_messages import MODELS, Asked, word_timestamps
from voice_server.web.vendors.channel import DEFAULTS, Ours, Translation, json_object
from voice_server.web.vendors.errors import refusal
from voice_server.web.vendors.operation import Body


class Continuation(Body):
    """More of a context, whose first message decided the rest. ``continue_``: more text follows.

    Whatever else it says is not looked at: to flush or end a context, clients before 3.0 name a
    voice and a format that are not the context's own.
    """

    context_id: Annotated[str, Field(min_length=1, max_length=200)]
    transcript: str = ""
    continue_: Annotated[bool | None, Field(alias="continue")] = None
    flush: bool | None = None


class Generation(Asked, Continuation):
    """A generation request, the first of its context."""

    max_buffer_delay_ms: Annotated[float, Field(ge=0, le=60_000)] | None = None


@dataclass(slots=True)
class _Context:
    configuration: Ours
    bytes_per_second: float
    began_at: float = field(default_factory=time.monotonic)
    ended: deque[bool] = field(default_factory=deque)  # for each turn under way: by a flush?
    is_open: bool = False  # text came that nothing has ended
    is_ending: bool = False
    is_cancelled: bool = False
    flushes: int = 0
    heard: float = 0.0  # seconds of sound that were sent
    base: float = 0.0  # of these, before the turn that is spoken


class CartesiaTranslation(Translation):
    """Contexts by their ids, from their first text to their ``done``."""

    def __init__(self, service: SpeechService, number: str, version: str = "") -> None:
        """``version``: the Cartesia-Version that the client asks for, such as "2025-11-04"."""
        super().__init__()
        self.defaults = replace(DEFAULTS, keep_open=True)
        self.opening = [{"opts": {}}]
        self._service = service
        self._number = number
        self._contexts: dict[str, _Context] = {}
        # Clients before 3.0 take it for an index into a list of their own.
        self._first_flush = 0 if "" < version < "2025" else 1

    # -- in --------------------------------------------------------------------------------------

    def incoming(self, raw: str) -> Sequence[Ours]:
        message = json_object(raw)
        name = message.get("context_id")
        try:
            if message.get("cancel"):
                return self._cancel(name)
            is_known = isinstance(name, str) and name in self._contexts
            kind = Continuation if is_known else Generation
            return self._generate(check_json(kind, raw.encode()))
        except RequestError as exc:
            self._service.metrics.refused.labels(exc.code).inc()
            self.replies.append(self._error(name if isinstance(name, str) else None, exc))
            return [{}]

    def _cancel(self, name: object) -> list[Ours]:
        context = self._contexts.get(name) if isinstance(name, str) else None
        if context is None or context.is_cancelled:
            return [{}]  # it is over, or about to be, which is what was wanted
        context.is_ending = context.is_cancelled = True
        return [{"context": name, "cancel": True}]

    def _generate(self, asked: Continuation) -> list[Ours]:
        name = asked.context_id
        context = self._contexts.get(name)
        if context is not None and context.is_ending:
            raise ProtocolMistake(
                f"context {name[:80]!r} takes no more text: its last message said continue: false, "
                "or it was cancelled",
            )
        if context is None:
            assert isinstance(asked, Generation)
            if not asked.transcript:
                raise RequestError("transcript › expected something to say", code="no_text")
            configuration = self._configuration(asked)
            context = _Context(configuration, _bytes_per_second(asked))
            self._contexts[name] = context
        said: list[Ours] = []
        if asked.transcript:
            if not context.is_open and not context.ended:
                # Said again after a silence: meanwhile it may have been forgotten for others.
                said.append({"context": name, **context.configuration})
            context.is_open = True
            said.append({"context": name, "token": asked.transcript})
        if not asked.continue_:
            said += self._end(name, context)
        elif asked.flush:
            said += self._flush(name, context)
        return said or [{}]

    def _configuration(self, asked: Generation) -> Ours:
        """Raises RequestError: what is wrong here is wrong with this context alone."""
        limit = self._service.limits.max_contexts - 1  # one is the socket's own
        if len(self._contexts) >= limit:
            raise RequestError(
                f"{limit} contexts speak on this socket; end one, or open another socket",
                code="too_many_contexts",
            )
        fmt = asked.output_format.samples()
        backend, voice = chosen(self._service, asked.voice.id or None, asked.model_id, MODELS)
        info = self._service.pools[backend].info
        if info is not None:
            config = self._service.config.backend(backend)
            self._service.catalogue.resolve(
                voice, backend, info, default=config.voice, aliases=config.aliases
            )
        # A backend without that option speaks as it always does.
        has_speed = info is not None and "speed" in info.options
        wanted: Ours = {
            "voice": voice,
            "backend": backend,
            "opts": {"speed": asked.rate} if asked.rate and has_speed else {},
            "language": asked.language,
            "format": {"encoding": fmt.encoding, "sample_rate": fmt.sample_rate},
            "timestamps": bool(asked.add_timestamps),
            "max_delay_ms": asked.max_buffer_delay_ms,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def _end(self, name: str, context: _Context) -> list[Ours]:
        context.is_ending = True
        if context.is_open:
            return self._end_turn(name, context, by_flush=False)
        if not context.ended:
            self.replies.append(self._done(name))
        return []

    def _flush(self, name: str, context: _Context) -> list[Ours]:
        if context.is_open:
            return self._end_turn(name, context, by_flush=True)
        self.replies.append(self._flush_done(name, context))
        return []

    def _end_turn(self, name: str, context: _Context, *, by_flush: bool) -> list[Ours]:
        context.is_open = False
        context.ended.append(by_flush)
        return [{"context": name, "done": True}]

    # -- out -------------------------------------------------------------------------------------

    def outgoing(self, message: Ours) -> Sequence[str | bytes]:
        name = message.get("context")
        if name is None:
            # Of the socket itself; each client reads its other messages by their context.
            return [self._refused(None, message)] if message["type"] == "error" else []
        if (context := self._contexts.get(name)) is None:
            return []
        match message["type"]:
            case "audio":
                return [self._chunk(name, context, message["pcm"])]
            case "words":
                if told := word_timestamps(message["words"], context.base):
                    fields = {"done": False, "word_timestamps": told}
                    return [self._told("timestamps", name, 206, fields)]
            case "done":
                return self._end_told(name, context)
            case "cancelled":
                return [self._done(name)]
            case "error":
                return [self._refused(name, message)]
        return []

    def _chunk(self, name: str, context: _Context, pcm: bytes) -> str:
        context.heard += len(pcm) / context.bytes_per_second
        took = round((time.monotonic() - context.began_at) * 1000, 3)
        data = base64.b64encode(pcm).decode()
        flush_id = context.flushes + self._first_flush
        fields = {"done": False, "data": data, "step_time": took, "flush_id": flush_id}
        return self._told("chunk", name, 206, fields)

    def _end_told(self, name: str, context: _Context) -> list[str]:
        context.base = context.heard
        told = [self._flush_done(name, context)] if context.ended.popleft() else []
        if context.is_ending and not context.ended and not context.is_cancelled:
            told.append(self._done(name))
        return told

    def _flush_done(self, name: str, context: _Context) -> str:
        flush_id = context.flushes + self._first_flush
        context.flushes += 1
        fields = {"done": False, "flush_done": True, "flush_id": flush_id}
        return self._told("flush_done", name, 206, fields)

    def _done(self, name: str) -> str:
        del self._contexts[name]
        return self._told("done", name, 200, {"done": True})

    def _told(self, kind: str, name: str, status: int, fields: dict[str, Any]) -> str:
        message = {"type": kind, "context_id": name, "status_code": status, **fields}
        return json.dumps(message)

    def _refused(self, name: str | None, message: Ours) -> str:
        is_over = "segment" not in message
        if is_over and name is not None:
            del self._contexts[name]
        return self._error(name, error_of(message), is_over=is_over)

    def _error(self, name: str | None, error: VoiceServerError, *, is_over: bool = True) -> str:
        status, body, _ = refusal("cartesia", error, self._number)
        # Clients before 3.0 read ``error`` alone.
        told = {"type": "error", "context_id": name, "done": is_over, "status_code": status}
        return json.dumps({**told, **body, "error": body["message"]})


def _bytes_per_second(asked: Generation) -> float:
    fmt = asked.output_format.samples()
    return float(fmt.sample_rate * fmt.sample_bytes)
