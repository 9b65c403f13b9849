"""A server that keeps the spans and metrics which it is sent, by OTLP over HTTP."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
import time
from collections.abc import Iterator

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Received", "sink"]


class Received:
    """What has arrived.

    Attributes:
        endpoint: where spans and metrics are sent to, by OTLP over HTTP.
        spans, metrics: those that have come through.
        requests: how many requests there were.
        answer: the status that the server gives to each request.
    """

    def __init__(self) -> None:
        self.endpoint: str = ""
        self.spans: list[Span] = []
        self.metrics: list[Metric] = []
        self.requests: int = 0
        self.answer: int = 200

    def take(self, path: str, data: bytes) -> None:
        """A request has come."""
        self.requests += 1
        if self.answer != 200:
            return
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics.extend(scope.metrics)
            return
        for of_resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)

    def wait_for(self, count: int, seconds: float = 60.0) -> int:
        """How many spans have arrived, as soon as that are so many, or when the time is over."""
        until = time.monotonic() + seconds
        while len(self.spans) < count and time.monotonic() < until:
            time.sleep(0.1)
        return len(self.spans)


@contextlib.contextmanager
def sink() -> Iterator[Received]:
    """The server while the block lasts."""
    received = Received()

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            received.take(self.path, data)
            self.send_response(received.answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads that."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    received.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
