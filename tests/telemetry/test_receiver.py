"""Against a real receiver: every span of a large run arrives, with the right parent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rh_agents import agent, open_store, parallel, run, tool

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
pytest.importorskip("rotel", reason="rotel is not installed")

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from rh_agents.telemetry.export import export_run, otlp_exporter
from rh_agents.telemetry.otel import OTel
from tests.services.otlp_receiver import Received, receiver


@tool
async def step(number: int) -> int:
    return number


@agent
async def flow(count: int) -> int:
    async with parallel(max_workers=50, name="steps") as p:
        p.map(step, range(count))
        return len([result async for result in p.stream()])


def trace_to(received: Received, count: int) -> int:
    """Execute the flow, and send all of its spans; how many members it had."""
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{received.endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=100_000, max_export_batch_size=512))
    members = asyncio.run(run(flow, count, tracing=OTel(provider, new_root_over=100_000)))
    provider.shutdown()
    return members


def expect_all(received: Received, members: int) -> None:
    """All spans are there, once, and those of members are below that of their group."""
    assert received.wait_for(members + 3) == members + 3
    assert len({span.span_id for span in received.spans}) == members + 3
    (group,) = [span for span in received.spans if span.name == "group steps"]
    below = [span for span in received.spans if span.parent_span_id == group.span_id]
    assert len(below) == members
    assert {span.name for span in below} == {"execute_tool step"}
    assert {span.trace_id for span in received.spans} == {group.trace_id}


@pytest.mark.slow
def test_the_spans_of_a_run_arrive_at_a_real_receiver(tmp_path: Path) -> None:
    with receiver(tmp_path) as received:
        expect_all(received, trace_to(received, 20))


@pytest.mark.slow
def test_twenty_thousand_of_twenty_thousand_spans_arrive(tmp_path: Path) -> None:
    with receiver(tmp_path) as received:
        expect_all(received, trace_to(received, 20_000))


@pytest.mark.slow
def test_a_past_run_that_is_exported_twice_arrives_with_the_same_spans_twice(tmp_path: Path) -> None:
    async def main(endpoint: str) -> int:
        store = open_store(str(tmp_path / "runs.db"))
        members = await run(flow, 5000, store=store, run_id="monday")
        exporter = otlp_exporter(endpoint)
        sent = [await export_run(store, "monday", exporter, new_root_over=100_000) for _ in range(2)]
        await store.aclose()
        assert sent == [members + 3] * 2
        return members

    with receiver(tmp_path) as received:
        members = asyncio.run(main(received.endpoint))
        assert received.wait_for(2 * (members + 3)) == 2 * (members + 3)
        once = {(span.span_id, span.parent_span_id, span.start_time_unix_nano, span.name) for span in received.spans}
        assert len(once) == members + 3
        received.spans[:] = list({span.span_id: span for span in received.spans}.values())
        expect_all(received, members)
