"""The boxes of a relay: who may connect, who is connected, and the session of each."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from voice_server.core.errors import BusyError, ConfigError, Forbidden, TunnelDown
from voice_server.core.tunnel import (
    FAMILY,
    SUBPROTOCOLS,
    Link,
    Refused,
    Role,
    Session,
    TunnelBroken,
)
from voice_server.core.tunnel.handshake import Answer, RelayHandshake
from voice_server.core.tunnel.records import MAX_STREAMS
from voice_server.relay.endpoint import Endpoint, SessionOver, as_bytes, as_frame
from voice_server.relay.guard import Guard, address_of
from voice_server.relay.metrics import RelayMetrics
from voice_server.relay.store import PackageStore
from voice_server.relay.sync import Sync
from voice_server.relay.wire import LinkLost, Wire, wire_of
from voice_server.web.errors import deny

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
MAX_HANDSHAKES = 64
_REFUSAL_CLOSE = 1008
_MAX_TOLD = 1_000
_RETRY_AFTER = 3.0
# Well below what the box takes: it learns a little later than we that a stream is over.
_MAX_STREAMS = MAX_STREAMS * 3 // 4


class Box:
    """One box by its name: at most one session at a time, and at most one link of that."""

    def __init__(
        self,
        name: str,
        store: PackageStore,
        metrics: RelayMetrics,
        *,
        keepalive: float,
        window: float,
    ) -> None:
        self.name = name
        self.store = store
        self.sync = Sync(name, self.store, metrics.sync_failures.labels(name).inc)
        self._links = metrics.links.labels(name)
        self.connected_at: float | None = None  # Unix time of the link there is, or was last
        self._keepalive, self._window = keepalive, window
        self._endpoint: Endpoint | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def is_connected(self) -> bool:
        return self._endpoint is not None and self._endpoint.session.is_linked

    @property
    def streams(self) -> int:
        """Requests and sockets under way."""
        return 0 if self._endpoint is None else len(self._endpoint.streams)

    def endpoint(self) -> Endpoint:
        """Where a new stream can be opened. Raises TunnelDown, which says why it cannot."""
        if self._endpoint is None or not self.is_connected:
            seen = "it has not been here yet"
            if self.connected_at is not None:
                seen = f"it came last {time.time() - self.connected_at:.0f} s ago"
            error = TunnelDown(
                f"the box {self.name!r} is not connected to this relay ({seen}); start it with "
                "--relay, and look into its log"
            )
            error.retry_after = _RETRY_AFTER
            raise error
        if self.streams >= _MAX_STREAMS:
            raise BusyError(f"the box {self.name!r} answers {self.streams} others; ask again soon")
        return self._endpoint

    async def take(self, answer: Answer) -> tuple[Endpoint, int]:
        """The session for a box that has proved who it is, and how much of it the box has.

        Raises Refused where another process is here under this name.
        """
        known = self._endpoint
        if known is not None and answer.session == known.session.name:
            if self._carrying is not None:
                # The old link is half open: the box would not be dialling otherwise.
                self._carrying.cancel()
                await asyncio.wait({self._carrying})
            if self._endpoint is known and known.session.can_resume(answer.received):
                return known, answer.received
        elif self.is_connected:
            raise Refused(
                "name_taken", f"a box named {self.name!r} is connected; give each its own name"
            )
        self.abandon("another session took its place")
        self._endpoint = Endpoint(
            Session(Role.RELAY, os.urandom(16)),
            keepalive=self._keepalive,
            on_voices_changed=self.sync.changed,
        )
        return self._endpoint, 0

    async def carry(self, endpoint: Endpoint, link: Link, received: int, wire: Wire) -> str:
        """Carry the session over a link, to the link's end; why it ended."""
        if endpoint is not self._endpoint or self._carrying is not None:
            return "another link was quicker"
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.connected_at = time.time()
        if self._syncing is None:
            self._syncing = asyncio.create_task(self.sync.run(endpoint))
        self.sync.resume()
        self._links.inc()
        logger.info("box %s: connected", self.name)
        carrying = asyncio.create_task(endpoint.run(link, received, wire))
        self._carrying = carrying
        try:
            await asyncio.wait({carrying})
        finally:
            carrying.cancel()
            if self._carrying is carrying:
                self._carrying = None
        if endpoint is not self._endpoint:
            return "its session has ended"
        if carrying.cancelled():
            return "another link took its place"
        reason = carrying.exception()
        if isinstance(reason, SessionOver):
            self.abandon(str(reason))
        else:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._window, self.abandon, "the tunnel is down")
        if not isinstance(reason, LinkLost | SessionOver | TunnelBroken) and reason is not None:
            logger.error("box %s: the link failed", self.name, exc_info=reason)
        return str(reason)

    def abandon(self, reason: str) -> None:
        """End the session there is, and all its streams."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        if self._endpoint is not None:
            self._endpoint.abandon(reason)
            self._endpoint = None

    async def close(self) -> None:
        """Tell the box goodbye, and end its session."""
        if self._endpoint is not None and self._carrying is not None:
            self._endpoint.leave("the relay ends")
            await asyncio.wait({self._carrying}, timeout=1.0)
        self.abandon("the relay ends")


class Lobby:
    """``WS /tunnel``: lets boxes in that prove their key. An ASGI application."""

    def __init__(
        self, boxes: Mapping[str, Box], keys: Mapping[str, tuple[str, ...]], guard: Guard
    ) -> None:
        self._boxes, self._keys, self._guard = boxes, keys, guard
        self._waiting = 0
        self._told: set[str] = set()  # addresses of boxes of another version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        offered = [name for name in scope.get("subprotocols") or () if name in SUBPROTOCOLS]
        if not offered:
            await deny(scope, receive, send, self._no_box(scope))
            return
        if self._waiting >= MAX_HANDSHAKES:
            await deny(scope, receive, send, BusyError("too many boxes dial at once; dial again"))
            return
        guessing = f"box {address_of(scope)}"
        self._guard.check_guesses(guessing)
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": offered[0]})
        wire, reason, code = wire_of(scope), "", 1000
        try:
            self._waiting += 1
            try:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                    box, endpoint, link, received = await self._shake(wire, offered[0])
            finally:
                self._waiting -= 1
            reason = await box.carry(endpoint, link, received, wire)
            logger.info("box %s: link lost: %s", box.name, reason)
        except Refused as exc:
            reason, code = exc.code, _REFUSAL_CLOSE
            self._guard.refused(exc.code)
            if exc.code == "unauthorized":
                self._guard.guessed(guessing)
            logger.warning("a box at %s was refused: %s", scope.get("client"), exc)
        except (LinkLost, TunnelBroken, TimeoutError) as exc:
            reason, code = "handshake", 1002
            logger.warning("no handshake with %s: %s", scope.get("client"), exc)
        with suppress(OSError, RuntimeError):  # it is closed already
            await send({"type": "websocket.close", "code": code, "reason": reason[:60]})

    def _no_box(self, scope: Scope) -> Forbidden:
        """What a caller without a subprotocol of ours is told: a box of another version, too."""
        known = " or ".join(SUBPROTOCOLS)
        others = [name for name in scope.get("subprotocols") or () if name.startswith(FAMILY)]
        if not others:
            return Forbidden(f"this is for boxes, server.py --relay, that speak {known}")
        error = Forbidden(
            f"this relay speaks {known}, the box {others[0]:.40}: run the same version on both",
            code="tunnel_version",
        )
        self._guard.refused(error.code)
        # Once for each address: it knocks every few seconds, and who it is nobody knows yet.
        if (address := address_of(scope)) not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(address)
            logger.warning("a box at %s was refused: %s", address, error)
        return error

    async def _shake(self, wire: Wire, subprotocol: str) -> tuple[Box, Endpoint, Link, int]:
        encoding = SUBPROTOCOLS[subprotocol]
        handshake = RelayHandshake(os.urandom(32), encoding)
        wire.write(as_frame(handshake.challenge(), encoding))
        try:
            answer = handshake.check(as_bytes(await wire.receive_message()), self._keys)
            box = self._boxes[answer.name]
            endpoint, received = await box.take(answer)
        except Refused as exc:
            wire.write(as_frame(handshake.refuse(exc), encoding))
            raise
        session = endpoint.session
        welcome, link = handshake.welcome(session.name, session.received)
        wire.write(as_frame(welcome, encoding))
        return box, endpoint, link, received


def parse_boxes(listed: str) -> dict[str, tuple[str, ...]]:
    """``home=KEY,office=KEY`` → keys by name; a name may come twice. Raises ConfigError."""
    keys: dict[str, tuple[str, ...]] = {}
    for part in listed.split(","):
        name, _, key = (piece.strip() for piece in part.partition("="))
        if not name and not key:
            continue
        if not (name.replace("-", "").replace("_", "").isalnum() and name.isascii()):
            raise ConfigError(
                f"{_SETTING} › expected NAME=KEY with commas between, got {name!r:.40}"
            )
        if len(key) < 16:
            raise ConfigError(
                f"{_SETTING} › {name}: expected a key of 16 characters or more, such as "
                "`openssl rand -hex 32` makes"
            )
        keys[name] = (*keys.get(name, ()), key)
    if not keys:
        raise ConfigError(f"{_SETTING} › expected NAME=KEY for each box that may connect")
    return keys


_SETTING = "environment › VOICE_SERVER_RELAY_BOXES"
