"""What the relay counts, for Prometheus: ``GET /relay/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

if TYPE_CHECKING:
    from voice_server.relay.boxes import Box


class RelayMetrics:
    """One registry per relay. A label is the name of a box, or an error code: few, and known."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        gauge = partial(Gauge, labelnames=["box"], registry=registry)
        counter = partial(Counter, labelnames=["box"], registry=registry)
        self._connected = gauge("voice_relay_connected", "1 when the box has a link")
        self._streams = gauge("voice_relay_streams", "Requests and sockets under way")
        self._packages = gauge("voice_relay_packages", "Voice packages in the store")
        self._failing = gauge(
            "voice_relay_sync_failing", "1 while the store cannot follow the box's voices"
        )
        self.links = counter("voice_relay_links", "Links that a box has made")
        self.sync_failures = counter(
            "voice_relay_sync_failures", "Synchronisations of voices that failed"
        )
        self.refused = Counter(
            "voice_relay_refused",
            "Requests that the relay refused itself, and boxes",
            ["code"],
            registry=registry,
        )
        for name in names:
            self.links.labels(name)
            self.sync_failures.labels(name)

    def exposition(self, boxes: Mapping[str, Box]) -> bytes:
        """The text that Prometheus reads."""
        for name, box in boxes.items():
            self._connected.labels(name).set(box.is_connected)
            self._streams.labels(name).set(box.streams)
            self._packages.labels(name).set(len(box.store.digests))
            self._failing.labels(name).set(box.sync.is_failing)
        return generate_latest(self.registry)
