"""The SDK of OpenTelemetry as the environment wants it, for programs that have set up none themselves."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import metrics, trace

from rh_agents.core.errors import UsageError

__all__ = ["Sparing", "has_meters", "send_waiting", "set_up", "spare_words"]

_FLUSH: Final = 0.9
"""Seconds that this may take: less than what makes a run give its tracer up."""
_REMEDY: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"


_RARELY: Final = 60.0
"""Seconds in which an exporter says each thing once."""
_EXPORTERS: Final = ("trace_exporter", "metric_exporter")


class Sparing(logging.Filter):
    """Lets a logger say each thing once a minute: a collector that is not there is no news at each attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it has not been said lately, whatever the numbers in it."""
        now = self._clock()
        if now - self._said.get(str(record.msg), -math.inf) < _RARELY:
            return False
        self._said[str(record.msg)] = now
        return True


def spare_words() -> None:
    """Let the exporters of OTLP that this library sets up say only once a minute that no one takes what they send."""
    for name in _EXPORTERS:
        logger = logging.getLogger(f"opentelemetry.exporter.otlp.proto.http.{name}")
        if not any(isinstance(known, Sparing) for known in logger.filters):
            logger.addFilter(Sparing())


def set_up() -> None:
    """Export spans and metrics by OTLP over HTTP, if the program exports them nowhere yet.

    Where to, under which name and how many, the variables of the SDK say: `OTEL_EXPORTER_OTLP_ENDPOINT` and
    `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_METRIC_EXPORT_INTERVAL`. With
    `OTEL_TRACES_EXPORTER=none` there are no spans, and with `OTEL_METRICS_EXPORTER=none` no metrics. What waits is sent
    when the program ends.

    Raises:
        UsageError: the SDK or its exporter is not installed.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise UsageError(f"spans are exported by the SDK of OpenTelemetry ({error}): {_REMEDY}") from error
    spare_words()
    if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        _set_up_traces()
    if os.environ.get("OTEL_METRICS_EXPORTER") != "none" and not has_meters():
        _set_up_metrics()


def _set_up_traces() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _set_up_metrics() -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 - optional
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - optional
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - optional

    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


def has_meters() -> bool:
    """Whether the program has set up an SDK for metrics."""
    return _flush_of(metrics.get_meter_provider()) is not None


def _flush_of(provider: Any) -> Any:
    """What those of an SDK have, and no others."""
    return getattr(provider, "force_flush", None)


def send_waiting() -> None:
    """Send what waits, since the worker process that has executed a part of a run may be ended right after that.

    In threads: the SDK sends for as long as its exporter takes, whatever timeout it is given, and a collector may hang.
    """
    until = time.monotonic() + _FLUSH
    flushes = [_flush_of(trace.get_tracer_provider()), _flush_of(metrics.get_meter_provider())]
    threads = [threading.Thread(target=flush, name="flush", daemon=True) for flush in flushes if flush is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
