"""What the relay counts, for Prometheus: ``GET /relay/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

if TYPE_CHECKING:
    from voice_server.relay.boxes import Box


class RelayMetrics:
    """One registry per relay. A label is the name of a box, or an error code: few, and known."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        box = ["box"]
        self._connected = Gauge(
            "voice_relay_connected", "1 when the box has a link", box, registry=registry
        )
        self._streams = Gauge(
            "voice_relay_streams", "Requests and sockets under way", box, registry=registry
        )
        self._packages = Gauge(
            "voice_relay_packages", "Voice packages in the store", box, registry=registry
        )
        self._failing = Gauge(
            "voice_relay_sync_failing",
            "1 while the store cannot follow the box's voices",
            box,
            registry=registry,
        )
        self.links = Counter(
            "voice_relay_links", "Links that a box has made", box, registry=registry
        )
        self.sync_failures = Counter(
            "voice_relay_sync_failures",
            "Synchronisations of voices that failed",
            box,
            registry=registry,
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
