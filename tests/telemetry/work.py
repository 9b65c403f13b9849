"""A traced program with worker processes, all of which export to one file: `python -m tests.telemetry.work STORE`."""

from __future__ import annotations

import asyncio
import os
import sys

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from rh_agents import agent, current, parallel, run, tool
from rh_agents.telemetry.otel import OTel

__all__ = ["in_a_process", "shards", "step"]

FILE = "TEST_SPANS"
"""The environment variable that names the file, which gets a line for each span."""


class _ToFile(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        with open(os.environ[FILE], "a", encoding="utf-8") as file:
            for span in spans:  # type: ignore[attr-defined]
                file.write(f"{_line(span)}\n")
        return SpanExportResult.SUCCESS


def _line(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    parent = "-" if span.parent is None else format_span_id(span.parent.span_id)
    return f"{format_trace_id(context.trace_id)} {format_span_id(context.span_id)} {parent} {span.name}"


if FILE in os.environ and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
    _provider = TracerProvider()
    _provider.add_span_processor(SimpleSpanProcessor(_ToFile()))
    trace.set_tracer_provider(_provider)


@tool(engine="process")
def in_a_process(number: int) -> tuple[str, str, str]:
    """What is current there, for OpenTelemetry and for us, and the baggage of the program."""
    here = trace.get_current_span().get_span_context()
    return format_span_id(here.span_id), current().trace["traceparent"], str(baggage.get_baggage("user"))


@tool
async def step(number: int) -> int:
    """One item."""
    return number


@agent
async def shards(count: int, size: int) -> int:
    """A group whose members are made in other processes."""
    async with parallel(max_workers=2, name="items") as p:
        p.map(step, range(count), shard=size, workers=2)
        return sum([result.unwrap() async for result in p.stream()])


if __name__ == "__main__":
    from tests.telemetry import work  # worker processes find the functions there

    asyncio.run(run(work.shards, 6, 3, store=sys.argv[1], run_id="monday", tracing=OTel()))
