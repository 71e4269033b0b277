"""Dials the relay and answers its streams with the server's own application.

    dial ─▶ handshake ─▶ carry ─ link lost ─▶ wait, a little longer each time ─▶ dial …

A link that drops for less than the resume window costs nothing: turns go on meanwhile, what they
say waits here, and the next link takes it up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from voice_server.config import Config
from voice_server.core.errors import ConfigError
from voice_server.core.restart import Restart, RestartPolicy
from voice_server.core.tunnel import (
    FAMILY,
    MAX_FRAME,
    SUBPROTOCOLS,
    Encoding,
    Refused,
    Role,
    Session,
)
from voice_server.core.tunnel.errors import TunnelBroken
from voice_server.core.tunnel.handshake import NONE, BoxHandshake
from voice_server.core.tunnel.records import Record
from voice_server.relay.call import Call
from voice_server.relay.endpoint import Endpoint, SessionOver, Stream, as_bytes, as_frame
from voice_server.relay.wire import DialledWire, LinkLost
from voice_server.storage.catalogue import Catalogue

logger = logging.getLogger(__name__)

PATH = "/tunnel"
HANDSHAKE_TIMEOUT = 10.0
_GOODBYE_TIMEOUT = 2.0
# The longest wait is short: a box that knocks every few seconds is no burden, and a relay that is
# back should be found soon. Half of each wait is chance: many boxes shall not knock together.
_BACKOFF = RestartPolicy(first_delay=0.2, longest_delay=4.0, failures=1_000)

# What the relay may ask for itself, to keep its store: the list, and each package.
_OWN = re.compile(r"POST /api/v1/tts/voices/sync|GET /api/v1/tts/voices/[a-z0-9_-]+/package")


@dataclass(frozen=True, slots=True)
class Dial:
    """Where the relay is, and who we are there. ``ca``: the authorities that we trust for it."""

    url: str
    name: str
    key: str
    api_key: str
    ca: Path | None = None
    encoding: Encoding = "msgpack"
    keepalive: float = 5.0
    window: float = 30.0

    @classmethod
    def from_config(cls, config: Config) -> Dial:
        """Raises ConfigError for what would be unsafe, or cannot work."""
        settings = config.settings
        url, key, api_key = settings.relay, settings.relay_key, settings.api_key
        assert url is not None
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
        except ValueError:  # a port beyond 65535, brackets around what is no IPv6 address
            is_address = False
        if not is_address:
            raise ConfigError(f"--relay {url[:100]} › expected such as wss://relay.example.com")
        if parts.scheme == "ws" and not (_is_near(url) or settings.relay_plain):
            raise ConfigError(
                f"--relay {url[:100]} › ws:// is not encrypted: use wss://; in a network that "
                "encrypts by itself, such as a VPN, set VOICE_SERVER_RELAY_PLAIN=true"
            )
        if key is None:
            raise ConfigError(
                "environment › VOICE_SERVER_RELAY_KEY › expected the key that the relay has for "
                "this box in VOICE_SERVER_RELAY_BOXES"
            )
        if api_key is None:
            raise ConfigError(
                "--relay › anybody who finds the relay could speak and clone voices: set "
                "VOICE_SERVER_API_KEY to a secret of your choice"
            )
        if parts.path in ("", "/"):
            url = f"{parts.scheme}://{parts.netloc}{PATH}"
        return cls(
            url=url,
            name=settings.relay_name,
            key=key.get_secret_value(),
            api_key=api_key.get_secret_value(),
            ca=settings.relay_ca,
            encoding=settings.relay_encoding,
            keepalive=settings.relay_keepalive,
            window=config.limits.resume_window,
        )


class Agent:
    """Serves ``app`` through the relay from ``start`` to ``stop``."""

    def __init__(self, app: ASGIApp, dial: Dial, catalogue: Catalogue | None = None) -> None:
        """``catalogue``: whose changes the relay is told. Raises ConfigError for a bad CA file."""
        self._app = app
        self._dial = dial
        self._tls = _tls(dial)
        self._endpoint: Endpoint | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._is_leaving = False
        if catalogue is not None:
            catalogue.subscribe(lambda _id, _voice: self._voices_changed())

    @property
    def is_connected(self) -> bool:
        """Whether there is a link to the relay now."""
        return self._endpoint is not None and self._endpoint.session.is_linked

    def start(self) -> None:
        """Dial, and dial again, until ``stop``."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Tell the relay goodbye, and end."""
        self._is_leaving = True
        if self._endpoint is not None:
            self._endpoint.leave("the server ends")
        if self._running is None:
            return
        if self.is_connected:
            await asyncio.wait({self._running}, timeout=_GOODBYE_TIMEOUT)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self._abandon("the server ends")
        for task in self._tasks:
            task.cancel()

    async def _run(self) -> None:
        restart, told = Restart(_BACKOFF), ""
        while not self._is_leaving:
            reason = await self._connect(restart)
            if self._is_leaving:
                return
            restart.failed(time.monotonic(), reason)
            if reason != told or restart.failures_in_a_row == 1:
                # A relay that is away for a day is told once, not at every knock.
                logger.warning("relay %s: %s", self._dial.url, reason)
                told = reason
            await asyncio.sleep(max(0.0, restart.next_start - time.monotonic()))

    async def _connect(self, restart: Restart) -> str:
        """One link, from its dialling to its end; why it ended."""
        [subprotocol] = [k for k, v in SUBPROTOCOLS.items() if v == self._dial.encoding]
        try:
            async with connect(
                self._dial.url,
                ssl=self._tls,
                subprotocols=[subprotocol],  # type: ignore[list-item]
                create_connection=DialledWire,
                # Sound does not shrink, and the tunnel has a sign of life of its own.
                compression=None,
                ping_interval=None,
                max_size=MAX_FRAME,
                open_timeout=HANDSHAKE_TIMEOUT,
                close_timeout=1,
                proxy=None if _is_near(self._dial.url) else True,
            ) as wire:
                assert isinstance(wire, DialledWire)
                await self._carry(wire, restart)
        except InvalidStatus as exc:
            if (refused := _refusal(exc, subprotocol)) is None:
                return f"cannot be reached: {exc}"
            return f"refuses this box: {refused} ({refused.code})"
        except (OSError, TimeoutError, WebSocketException) as exc:
            return f"cannot be reached: {str(exc) or type(exc).__name__}"
        except Refused as exc:
            return f"refuses this box: {exc} ({exc.code})"
        except (LinkLost, TunnelBroken) as exc:
            return f"link lost: {exc}"
        except SessionOver as exc:
            self._abandon(str(exc))
            return f"said goodbye: {exc}"
        except Exception as exc:
            logger.exception("relay %s: the link failed", self._dial.url)
            return f"link failed: {type(exc).__name__}"
        return "link lost"

    async def _carry(self, wire: DialledWire, restart: Restart) -> None:
        """The handshake, and all that follows. Ends by raising what ended it."""
        dial, known = self._dial, self._endpoint
        handshake = BoxHandshake(os.urandom(32), dial.name, dial.key, dial.encoding)
        before = (known.session.name, known.session.received) if known else (NONE, 0)
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            answer = handshake.answer(as_bytes(await wire.receive_message()), *before)
            wire.write(as_frame(answer, dial.encoding))
            name, received, link = handshake.finish(as_bytes(await wire.receive_message()))
        if known is not self._endpoint:
            raise LinkLost("the session ran out while it was taken up")
        if known is None or name != known.session.name or not known.session.can_resume(received):
            self._abandon("the relay does not know the session any more")
            known = self._endpoint = Endpoint(
                Session(Role.BOX, name), keepalive=dial.keepalive, on_open=self._open
            )
            received = 0
            known.session.tell_voices_changed()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        restart.ready()
        logger.info("relay %s: connected as %r", dial.url, dial.name)
        try:
            await known.run(link, received, wire)
        finally:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(dial.window, self._abandon, "the tunnel is down")

    # -- streams ---------------------------------------------------------------------------------

    def _open(self, stream: Stream, record: Record) -> None:
        scope = record["scope"]
        if record["own"]:
            if not _OWN.fullmatch(f"{scope.get('method')} {scope['path']}"):
                stream.reset("the relay may not ask that")
                return
            bearer = f"Bearer {self._dial.api_key}".encode()
            scope["headers"] = [[b"host", b"localhost"], [b"authorization", bearer]]
        task = asyncio.create_task(Call(stream, scope).run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _voices_changed(self) -> None:
        if self._endpoint is not None:
            self._endpoint.session.tell_voices_changed()
            self._endpoint.wake()

    def _abandon(self, reason: str) -> None:
        """The session is over; the applications at work are told that their peers are gone."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._endpoint is not None:
            self._endpoint.abandon(reason)
            self._endpoint = None


def _refusal(exc: InvalidStatus, offered: str) -> Refused | None:
    """What the relay says in the place of a tunnel; None where a proxy or another server speaks."""
    try:
        said = json.loads(exc.response.body or b"")
        code, reason = f"{said['code']}"[:40], f"{said['detail']}"[:300]
    except (ValueError, TypeError, KeyError):
        return None
    if FAMILY in reason and offered not in reason:
        # A relay before version 3 names what it speaks, and says no more.
        code, reason = "tunnel_version", f"{reason}, this server {offered}: upgrade the relay"
    return Refused(code, reason)


def _is_near(url: str) -> bool:
    """Whether the relay is on this machine."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def _tls(dial: Dial) -> Any:
    if not dial.url.startswith("wss:"):
        return None
    try:
        return ssl.create_default_context(cafile=dial.ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"environment › VOICE_SERVER_RELAY_CA › expected a PEM file of certificates: {exc}"
        ) from None
