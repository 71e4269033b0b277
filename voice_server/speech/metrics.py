"""What ``GET /metrics`` tells: counters and histograms of turns, gauges read from the pools."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voice_server.workers.pool import WorkerPool

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """One registry per application: nothing is global. Every label is one of a few known names."""

    def __init__(self, pools: Mapping[str, WorkerPool]) -> None:
        self.registry = CollectorRegistry()
        registry, backend = self.registry, ["backend"]
        self.ttfa = Histogram(
            "voice_server_ttfa_seconds",
            "From the token that completed the first segment of a turn to its first frame",
            buckets=_SECONDS,
            labelnames=["backend", "door"],
            registry=registry,
        )
        self.lead = Histogram(
            "voice_server_lead_seconds",
            "Sound that listeners hold and have not played, sampled while they listen",
            buckets=(0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0),
            labelnames=backend,
            registry=registry,
        )
        self.turns = Counter(
            "voice_server_turns",
            "Turns that ended",
            ["backend", "outcome", "door"],
            registry=registry,
        )
        self.refused = Counter(
            "voice_server_refused", "Requests refused", ["code"], registry=registry
        )
        self.underruns = Counter(
            "voice_server_underruns",
            "Gaps in speech for which the server is to blame",
            labelnames=backend,
            registry=registry,
        )
        self.audio = Counter(
            "voice_server_audio_seconds",
            "Seconds of sound sent",
            labelnames=backend,
            registry=registry,
        )
        self.characters = Counter(
            "voice_server_characters", "Characters received", labelnames=backend, registry=registry
        )
        self.segment_errors = Counter(
            "voice_server_segment_errors",
            "Segments that were not spoken whole",
            labelnames=backend,
            registry=registry,
        )
        self.connections = Gauge(
            "voice_server_connections", "WebSockets open for speech", registry=registry
        )
        self.parked = Gauge(
            "voice_server_parked_sessions",
            "Sessions whose socket dropped, kept for a resume",
            registry=registry,
        )
        self.active = Gauge(
            "voice_server_active_turns", "Turns being spoken", labelnames=backend, registry=registry
        )
        for name in pools:
            # A series that appears only with its first event is no zero to compare with.
            self.ttfa.labels(name, "stream-tokens")
            for metric in (self.lead, self.underruns, self.audio, self.characters):
                metric.labels(name)
            self.segment_errors.labels(name)
            self.active.labels(name)
        self.registry.register(_Pools(pools))


class _Pools(Collector):
    """Reads the pools when it is asked, so that speaking costs nothing for it."""

    def __init__(self, pools: Mapping[str, WorkerPool]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        gauges = {
            name: GaugeMetricFamily(f"voice_server_{name}", text, labels=["backend"])
            for name, text in (
                ("ready", "1 when a worker is warm"),
                ("workers", "Workers alive"),
                ("slots", "Jobs that the workers can run at once"),
                ("slots_free", "Slots without a job"),
                ("queue", "Jobs that wait for a slot"),
                ("rtf", "Slot-seconds of work per second of sound, moving average"),
            )
        }
        restarts = CounterMetricFamily(
            "voice_server_worker_restarts", "Workers replaced", labels=["backend", "cause"]
        )
        events = CounterMetricFamily(
            "voice_server_engine_events",
            "What a backend counts of its model",
            labels=["backend", "event"],
        )
        for backend, pool in self._pools.items():
            snapshot, rtf = pool.snapshot(), pool.capacity().rtf
            values = {
                "ready": float(pool.is_ready),
                "workers": float(len(snapshot["workers"])),
                "slots": float(snapshot["slots"]),
                "slots_free": float(snapshot["free_slots"]),
                "queue": float(snapshot["waiting"]),
                "rtf": math.nan if rtf is None else rtf,
            }
            for name, value in values.items():
                gauges[name].add_metric([backend], value)
            for cause, count in snapshot["restarts"].items():
                restarts.add_metric([backend, cause], count)
            for event, count in snapshot["counts"].items():
                events.add_metric([backend, event], count)
        yield from gauges.values()
        yield restarts
        yield events
