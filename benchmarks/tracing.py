"""What a tracer costs each call: `python -m benchmarks.tracing [CALLS] [--attempts] [--store]`.

A group of calls that do nothing: once not traced, then not sampled, with all spans, and with metrics. What is above the
first line is the tracer's. The spans go to a `BatchSpanProcessor` whose exporter drops them, and, in the last line, to
one whose exporter hangs as soon as it has a batch, so that the queue fills and spans are dropped.

    --attempts  the calls may have several attempts, so each has a span of its own
    --store     the run is recorded in a file of SQLite

Each kind is measured in turn, several times: processor time of the process (its threads too), and time that has passed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from rh_agents import agent, parallel, run, tool
from rh_agents.telemetry.otel import OTel

__all__ = ["Cost", "cost_of_a_call"]

REPEATED = 7


class Cost(NamedTuple):
    """Microseconds for a call: of processor time, and as they pass."""

    processor: float
    passed: float


class _Drops(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


_hanging: list[_Hangs] = []
"""Those of the measurement under way. Spans that they kept would cost the garbage collector of the next ones."""


class _Hangs(SpanExporter):
    """A collector that takes a connection and never answers, until the measurement is over."""

    def __init__(self) -> None:
        self.is_over: threading.Event = threading.Event()
        _hanging.append(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_over.wait()
        return SpanExportResult.FAILURE


@tool
async def step(number: int) -> int:
    """One call."""
    return number


@tool(retry=2)
async def tried(number: int) -> int:
    """One call that may have several attempts."""
    return number


@agent
async def flow(count: int, attempts: bool = False) -> int:
    """All calls."""
    async with parallel(max_workers=10, name="steps") as p:
        p.map(tried if attempts else step, range(count))
        return len([result async for result in p.stream()])


def cost_of_a_call(tracing: OTel | bool, calls: int, *, attempts: bool = False, store: bool = False) -> Cost:
    """What a call costs in this process, with all that is around it."""
    with tempfile.TemporaryDirectory() as folder:
        where = str(Path(folder) / "runs.db") if store else None
        began, started = time.process_time(), time.perf_counter()
        asyncio.run(run(flow, calls, attempts, store=where, tracing=tracing))
        took = (time.process_time() - began, time.perf_counter() - started)
    return Cost(*(seconds / calls * 1e6 for seconds in took))


def _sampled(*, is_sampled: bool, exporter: SpanExporter | None = None, **options: Any) -> OTel:
    provider = TracerProvider(sampler=ALWAYS_ON if is_sampled else ALWAYS_OFF)
    provider.add_span_processor(BatchSpanProcessor(exporter or _Drops()))
    return OTel(provider, new_root_over=1_000_000, **options)


def main(calls: int, **how: bool) -> None:
    """Print a line for each kind."""
    kinds: dict[str, Callable[[], OTel | bool]] = {
        "not traced": lambda: False,
        "not sampled": lambda: _sampled(is_sampled=False),
        "all spans": lambda: _sampled(is_sampled=True),
        "metrics, not sampled": lambda: _sampled(is_sampled=False, metrics=MeterProvider([InMemoryMetricReader()])),
        "metrics and all spans": lambda: _sampled(is_sampled=True, metrics=MeterProvider([InMemoryMetricReader()])),
        "all spans, hanging": lambda: _sampled(is_sampled=True, exporter=_Hangs()),
    }
    cost_of_a_call(False, calls, **how)
    measured: dict[str, list[Cost]] = {name: [] for name in kinds}
    for _ in range(REPEATED):
        for name, make in kinds.items():
            measured[name].append(cost_of_a_call(make(), calls, **how))
            while _hanging:
                _hanging.pop().is_over.set()
    without = statistics.median(cost.processor for cost in measured["not traced"])
    for name, costs in measured.items():
        processor, passed = (statistics.median(each) for each in zip(*costs, strict=True))
        more = f"{processor - without:6.1f} more; {passed:7.1f} µs pass"
        print(f"{name:22} {processor:7.1f} µs of processor time a call, {more}")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    main(int(words[0]) if words else 3000, attempts="--attempts" in sys.argv, store="--store" in sys.argv)
