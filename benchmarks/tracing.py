"""What a tracer costs each call, in CPU: `python -m benchmarks.tracing [CALLS]`.

A group of calls that do nothing, without a store: once not traced, then not sampled, with all spans, and with metrics.
What is above the first line is the tracer's. The spans go to a `BatchSpanProcessor` whose exporter drops them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from rh_agents import agent, parallel, run, tool
from rh_agents.telemetry.otel import OTel

__all__ = ["cost_of_a_call"]

REPEATED = 5


class _Drops(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@tool
async def step(number: int) -> int:
    """One call."""
    return number


@agent
async def flow(count: int) -> int:
    """All calls."""
    async with parallel(max_workers=10, name="steps") as p:
        p.map(step, range(count))
        return len([result async for result in p.stream()])


def cost_of_a_call(tracing: OTel | bool, calls: int) -> float:
    """Microseconds of CPU in this process for a call."""
    began = time.process_time()
    asyncio.run(run(flow, calls, tracing=tracing))
    return (time.process_time() - began) / calls * 1e6


def _sampled(*, is_sampled: bool, **options: Any) -> OTel:
    provider = TracerProvider(sampler=ALWAYS_ON if is_sampled else ALWAYS_OFF)
    provider.add_span_processor(BatchSpanProcessor(_Drops(), max_queue_size=100_000))
    return OTel(provider, new_root_over=1_000_000, **options)


def main(calls: int) -> None:
    """Print a line for each kind."""
    kinds: dict[str, Callable[[], OTel | bool]] = {
        "not traced": lambda: False,
        "not sampled": lambda: _sampled(is_sampled=False),
        "all spans": lambda: _sampled(is_sampled=True),
        "metrics, not sampled": lambda: _sampled(is_sampled=False, metrics=MeterProvider([InMemoryMetricReader()])),
        "metrics and all spans": lambda: _sampled(is_sampled=True, metrics=MeterProvider([InMemoryMetricReader()])),
    }
    cost_of_a_call(False, calls)
    lowest = dict.fromkeys(kinds, float("inf"))
    for _ in range(REPEATED):
        for name, make in kinds.items():
            lowest[name] = min(lowest[name], cost_of_a_call(make(), calls))
    for name, microseconds in lowest.items():
        print(f"{name:22} {microseconds:7.1f} µs a call, {microseconds - lowest['not traced']:6.1f} more")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
