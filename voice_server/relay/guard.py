"""How often an address and a key may ask, and how often an address may be wrong about a key.

The box judges keys, so the relay learns from its answers: a key that was good once is known, and
who shows it is not taken for somebody who guesses.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from typing import Final

from starlette.types import Scope

from voice_server.config import Settings
from voice_server.relay.metrics import RelayMetrics
from voice_server.web.access import Rates
from voice_server.web.auth import Presented

_MAX_KNOWN: Final = 10_000
_UNAUTHORIZED: Final = 401


class Guard:
    """Counts, for one relay."""

    def __init__(self, settings: Settings, metrics: RelayMetrics) -> None:
        self._metrics = metrics
        given = settings.relay_key_rate, settings.relay_address_rate, settings.relay_wrong_keys
        self._by_key, self._by_address, self._wrong = ("" if r == "off" else r for r in given)
        self._rates = Rates()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def admit(self, box: str, scope: Scope, presented: Presented) -> None:
        """Count a request. Raises RateLimited with the seconds to wait."""
        address = address_of(scope)
        self._rates.count(f"address {address}", self._by_address, "this address")
        keys = _digests(box, presented)
        if not any(key in self._known for key in keys):
            self.check_guesses(f"client {address}")
        if keys:
            self._rates.count(f"key {keys[0].hex()}", self._by_key, "this key")

    def answered(self, box: str, scope: Scope, presented: Presented, status: int) -> None:
        """How the box answered says whether the key is one; not for what it answers anybody."""
        keys = _digests(box, presented)
        if status == _UNAUTHORIZED:
            self.guessed(f"client {address_of(scope)}")
            for key in keys:
                self._known.pop(key, None)
        elif status < _UNAUTHORIZED:
            for key in keys[:1]:
                self._known[key] = None
                self._known.move_to_end(key)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)

    def refused(self, code: str) -> None:
        """Count what the relay, or the box, refused. ``code``: of the error."""
        self._metrics.refused.labels(code).inc()

    def guessed(self, who: str) -> None:
        """Count a wrong key."""
        self._rates.add(who, self._wrong)

    def check_guesses(self, who: str) -> None:
        """Raises RateLimited where there were too many."""
        self._rates.check_spent(who, self._wrong, "wrong keys from this address")


def address_of(scope: Scope) -> str:
    """Whom a request comes from, as far as limits go: of IPv6 the network, which one owner has."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def _digests(box: str, presented: Presented) -> list[bytes]:
    # With the box: what one takes for a key is none at another.
    return [hashlib.sha256(box.encode() + b"\0" + key).digest() for key in presented.keys]
