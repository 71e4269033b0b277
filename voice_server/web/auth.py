"""Who may come in: keys, hosts and origins, for HTTP and WebSocket, before anything else runs.

Pure ASGI, because middleware for HTTP does not see WebSockets. What is not allowed by name is
refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from voice_server.core.errors import Forbidden, Unauthorized, VoiceServerError
from voice_server.storage.keyring import MASTER, Key, Keyring
from voice_server.web.access import Rates, scope_of
from voice_server.web.errors import deny

# Probes come from machines without a key; what these tell concerns no user.
OPEN_PATHS = frozenset({"/health", "/ready"})
# Open WebUI asks for these without its key, to fill two lists. (It sends the key with the text.)
OPEN_LISTS = frozenset({("GET", "/v1/audio/voices"), ("GET", "/v1/audio/models")})
_KEY_HEADERS = (b"x-api-key", b"xi-api-key", b"x-vapi-secret")


class Gate:
    """Lets a request pass that carries the key, or any when none is configured.

    The key comes as ``Authorization: Bearer``, in a header of ``_KEY_HEADERS``, as the password of
    ``Basic``, which is how a browser asks for it, or in ``api_key`` of a WebSocket's query, since
    browsers can set no header there; better, ``ticket`` of that query holds a ticket. Both are
    taken out of the query, so that no log shows them. A key of the keyring opens what its scopes
    name.

    A browser's page from another host is refused unless its origin is allowed. Without a key, so is
    a request to a host name that is not this machine's: else any page could speak through a server
    on loopback, by giving its own name our address.

    Sets ``tenant``, ``is_known`` (it carries a key, or needs none) and ``key``, where there is
    one, in ``scope["state"]``.
    """

    def __init__(
        self,
        app: ASGIApp,
        api_key: str | None,
        allowed_origins: Collection[str] = (),
        host: str = "localhost",
        keyring: Keyring | None = None,
    ) -> None:
        """``host``: the name that the server listens on."""
        self._app = app
        self._digest = None if api_key is None else _digest(api_key.encode())
        self._keyring = keyring
        self._rates = Rates()
        self._origins = frozenset(allowed_origins)
        self._hosts = {host.lower(), *(urlsplit(origin).hostname for origin in allowed_origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except VoiceServerError as exc:
            await deny(scope, receive, send, exc)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        presented = presented_by(scope, headers)
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if (origin := headers.get(b"origin")) is not None:
            self._check_origin(origin.decode("latin-1").lower(), host)
        state = scope.setdefault("state", {})
        is_guarded = self._digest is not None or bool(self._keyring)
        state["tenant"], state["is_known"] = "", not is_guarded
        if not is_guarded:
            self._check_host(host)
            _check_exposure(scope)
            return
        key = self._key(presented)
        if key is not None:
            state["is_known"], state["key"] = True, key
            # One key is one tenant; with the master key alone there is nobody to be fair to.
            state["tenant"] = "" if key is MASTER else key.id
            self._check_key(key, scope)
            return
        if is_open(scope):
            return
        what = "does not know this API key" if presented.keys else "wants its API key"
        raise Unauthorized(
            f"this server {what}: send the right one as 'Authorization: Bearer KEY' or 'X-API-Key'"
        )

    def _key(self, presented: Presented) -> Key | None:
        for secret in presented.keys:
            if self._digest is not None and hmac.compare_digest(_digest(secret), self._digest):
                return MASTER
            if self._keyring is not None and (key := self._keyring.find(secret)) is not None:
                return key
        for ticket in presented.tickets:
            if self._keyring is not None and (key := self._keyring.take_ticket(ticket)) is not None:
                return key
        return None

    def _check_key(self, key: Key, scope: Scope) -> None:
        method = "WS" if scope["type"] == "websocket" else scope["method"]
        needed = scope_of(method, scope["path"])
        if not key.may(needed):
            raise Forbidden(
                f"this key may not do that: it needs the scope {needed!r} and has "
                f"{', '.join(sorted(key.scopes))}",
                code="missing_scope",
            )
        self._rates.check(key)

    def _check_origin(self, origin: str, host: str) -> None:
        if origin in self._origins or "*" in self._origins:
            return
        scheme, separator, authority = origin.partition("://")
        if separator and scheme and authority and authority == host:
            return
        raise Forbidden(
            f"pages from {origin[:200]!r} may not use this server; "
            "its operator can allow them with VOICE_SERVER_ALLOWED_ORIGINS",
            code="foreign_origin",
        )

    def _check_host(self, host: str) -> None:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = host
        if not name or name in self._hosts or _is_own(name) or "*" in self._origins:
            return
        raise Forbidden(
            f"this server has no key and does not answer to the name {name[:200]!r}; use its "
            "address, or let its operator name the origin in VOICE_SERVER_ALLOWED_ORIGINS",
            code="foreign_host",
        )


def _check_exposure(scope: Scope) -> None:
    """``server.py`` listens on no network without a key; other servers do not know that rule."""
    try:
        address = ipaddress.ip_address((scope.get("server") or ("",))[0])
    except ValueError:
        return  # the path of a socket, or nothing
    if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
        raise Forbidden(
            "this server listens on a network and has no key: anybody could speak, and clone "
            "voices: set VOICE_SERVER_API_KEY, or listen on 127.0.0.1",
            code="key_missing",
        )


def is_open(scope: Scope) -> bool:
    """Whether this is answered without a key."""
    return scope["type"] == "http" and (
        scope["path"] in OPEN_PATHS or (scope["method"], scope["path"]) in OPEN_LISTS
    )


def _is_own(name: str) -> bool:
    """Names that nobody else can make point here."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request shows at the gate."""

    keys: list[bytes]
    tickets: list[str]


def presented_by(scope: Scope, headers: dict[bytes, bytes]) -> Presented:
    """Every key that is presented. Takes ``api_key`` and ``ticket`` out of the query."""
    keys = []
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() in (b"bearer", b"token"):
        keys.append(credentials.strip())
    elif scheme.lower() == b"basic":
        keys.append(_password(credentials.strip()))
    keys += [headers[name].strip() for name in _KEY_HEADERS if name in headers]
    protocols = headers.get(b"sec-websocket-protocol", b"").split(b",")
    if protocols[0].strip().lower() in (b"token", b"bearer"):
        # As Deepgram's clients in browsers, which can set no other header: "token, KEY".
        keys += [protocol.strip() for protocol in protocols[1:2]]
    tickets: list[str] = []
    query: bytes = scope.get("query_string", b"")
    if b"api_key" in query or b"ticket" in query:
        parts = [(part.partition(b"=")[0], part) for part in query.split(b"&")]
        secret = (b"api_key", b"ticket")
        # In place: the server that made the scope writes it into its log later.
        scope["query_string"] = b"&".join(part for name, part in parts if name not in secret)
        for name, part in parts if scope["type"] == "websocket" else ():
            value = unquote_to_bytes(part.partition(b"=")[2].replace(b"+", b" "))
            if name == b"api_key":
                keys.append(value)
            elif name == b"ticket":
                tickets.append(value.decode("latin-1"))
    return Presented(keys, tickets)


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _digest(key: bytes) -> bytes:
    # Compared as digests: of equal length, and nothing in memory looks like a key.
    return hashlib.sha256(key).digest()
