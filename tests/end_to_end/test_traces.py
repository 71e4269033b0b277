"""A turn's trace, from a real server to a collector that speaks OTLP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.sync.client import connect

from tests.end_to_end.cli_process import SECONDS, running_server, wait_for

TEXT = "Hello there my friend. And here is another sentence."


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """(address, the spans that arrived)"""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_turn_is_a_trace_from_its_first_token_across_the_pipe_to_its_end(tmp_path: Path) -> None:
    with collector() as (address, spans):
        settings = {
            "VOICE_SERVER_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with running_server(tmp_path, "--backend", "tone", **settings) as (_, port):
            with connect(f"ws://127.0.0.1:{port}/stream-tokens", open_timeout=SECONDS) as socket:
                socket.send(json.dumps({"token": TEXT, "done": True}))
                assert bytes in map(type, list(socket))
            wait_for(lambda: any(span.name == "turn" for span in spans))
    by_id = {span.span_id: span for span in spans}
    (turn,) = [span for span in spans if span.name == "turn"]
    assert attributes(turn)["backend"] == "tone"
    assert attributes(turn)["door"] == "stream-tokens"
    assert attributes(turn)["outcome"] == "done"
    assert [event.name for event in turn.events] == ["first_frame"]
    segments = [span for span in spans if span.name == "segment"]
    assert sorted(attributes(span)["segment"] for span in segments) == [0, 1]
    assert all(span.parent_span_id == turn.span_id for span in segments)
    for kind in ("wait", "worker"):
        parents = [by_id[span.parent_span_id].name for span in spans if span.name == kind]
        assert parents == ["segment", "segment"]
    assert {span.trace_id for span in spans} == {turn.trace_id}
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        for event in span.events:
            assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano
    assert "friend" not in str(spans)
