"""Where the time of a turn goes, as OpenTelemetry spans, for who turned traces on.

    turn ── first token ───────────────────────────▶ its end        event: first_frame
      ├─ segment ── text complete ─▶ last chunk
      │    ├─ wait ──── in the queue
      │    └─ worker ── across the pipe, by the worker's own clock  event: first_chunk
      └─ segment …

Attributes hold figures and names, never what is said. The packages are the extra ``traces``; where
they send to is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from voice_server.core.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

NANOSECONDS = 1_000_000_000


class Tracing:
    """Begins the spans of turns. Raises ConfigError where the packages are missing."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """``provider``: what takes the spans; by default they leave by OTLP over HTTP."""
        try:
            from opentelemetry import trace
        except ImportError:
            raise ConfigError(
                "VOICE_SERVER_TRACES › needs OpenTelemetry: pip install "
                "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
            ) from None
        self._provider = _exporting() if provider is None else provider
        self._tracer = self._provider.get_tracer("voice_server")
        self._in_context = trace.set_span_in_context

    def begin(self, backend: str, door: str) -> TurnTrace:
        """A turn begins now."""
        return TurnTrace(self, self.span("turn", None, time.time(), backend=backend, door=door))

    def span(self, name: str, parent: Span | None, start: float, **attributes: Any) -> Span:
        """``start``: seconds since the epoch."""
        context = None if parent is None else self._in_context(parent)
        at = round(start * NANOSECONDS)
        return self._tracer.start_span(name, context, attributes=attributes, start_time=at)

    def close(self) -> None:
        """Send what waits to be sent."""
        self._provider.shutdown()


class TurnTrace:
    """The span of one turn, and those of its segments as they end."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing, self._span = tracing, span

    def segment(self, number: int, samples: int, timing: Mapping[str, float]) -> None:
        """A segment was spoken, just now. ``timing`` as a pool's jobs tell it, seconds."""
        end = time.time()
        waited, total = timing.get("waited", 0.0), timing.get("total", 0.0)
        began = end - total
        segment = self._tracing.span(
            "segment", self._span, began - waited, segment=number, samples=samples
        )
        wait = self._tracing.span("wait", segment, began - waited)
        wait.end(round(began * NANOSECONDS))
        worker = self._tracing.span("worker", segment, began)
        if (first := timing.get("first")) is not None:
            worker.add_event("first_chunk", timestamp=round((began + first) * NANOSECONDS))
        worker.end(round(end * NANOSECONDS))
        segment.end(round(end * NANOSECONDS))

    def first_frame(self) -> None:
        """The first frame of the turn leaves now."""
        self._span.add_event("first_frame")

    def end(self, outcome: str, **attributes: Any) -> None:
        """The turn is over."""
        self._span.set_attributes({"outcome": outcome, **attributes})
        self._span.end()


def _exporting() -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(
            "VOICE_SERVER_TRACES › needs opentelemetry-exporter-otlp-proto-http: install it"
        ) from None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "voice-server")
    resource = Resource.create({SERVICE_NAME: name})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
