"""A traced program that kills itself in the middle: `python -m tests.telemetry.killed STORE ENDPOINT DIE_AT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from rh_agents import Usage, agent, llm, parallel, report_usage, run, tool
from rh_agents.telemetry.otel import OTel

__all__ = ["COUNT", "DIE_AT", "INTERVAL", "flow"]

COUNT = 60
INTERVAL = 0.2
"""Seconds between two exports."""
DIE_AT = -1
"""At this item the process is killed."""


@llm
async def ask(number: int) -> int:
    """A question to a model."""
    report_usage(Usage(input_tokens=2, output_tokens=1, requests=1, cost=0.5))
    return number


@tool
async def step(number: int) -> int:
    """One item."""
    await asyncio.sleep(0.02)
    if number == DIE_AT:
        os.kill(os.getpid(), signal.SIGKILL)
    return await ask(number)


@agent
async def flow(count: int) -> int:
    """All items."""
    async with parallel(max_workers=2, name="steps") as p:
        p.map(step, range(count))
        return len(await p.gather())


if __name__ == "__main__":
    from tests.telemetry import killed

    store, endpoint, die_at = sys.argv[1:]
    killed.DIE_AT = int(die_at)
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=INTERVAL * 1000))
    asyncio.run(run(killed.flow, COUNT, store=store, run_id="monday", tracing=OTel(provider)))
