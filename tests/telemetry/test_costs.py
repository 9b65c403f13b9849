"""What tracing costs, judged by counting: how many Python functions are called on the event loop for a call of ours."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from rh_agents import MemoryStore, agent, parallel, run, tool

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from rh_agents.telemetry._sdk import send_waiting
from rh_agents.telemetry.otel import OTel

CALLS = 3000


@tool(retry=2)
async def step(number: int) -> int:
    return number


@agent
async def flow(count: int) -> int:
    async with parallel(max_workers=10, name="steps") as p:
        p.map(step, range(count))
        return len([result async for result in p.stream()])


class Drops(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Hangs(SpanExporter):
    """A collector that takes a connection and never answers, until the test is over."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.is_asked = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_asked.set()
        self.is_over.wait()
        return SpanExportResult.FAILURE


@contextmanager
def exporting_to(exporter: SpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider
    finally:
        if isinstance(exporter, Hangs):
            exporter.is_over.set()
        provider.shutdown()


def python_calls(execute: Callable[[], object], counts: Callable[[FrameType], bool] = lambda _: True) -> int:
    """How many Python functions are called in this thread."""
    found = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal found
        if event == "call" and counts(frame):
            found += 1

    sys.setprofile(look)
    try:
        execute()
    finally:
        sys.setprofile(None)
    return found


def executed(tracing: OTel | bool, count: int = CALLS, store: MemoryStore | None = None) -> int:
    return asyncio.run(run(flow, count, run_id="monday", store=store, tracing=tracing))


def for_a_call(tracing: OTel | bool) -> float:
    """Python functions for each call, without those that a run calls once."""
    executed(tracing, 10)
    few, many = (python_calls(functools.partial(executed, tracing, count)) for count in (10, 210))
    return (many - few) / 200


def test_without_a_tracer_nothing_of_it_is_called() -> None:
    def is_of_tracing(frame: FrameType) -> bool:
        file = frame.f_code.co_filename.replace("\\", "/")
        return "rh_agents" in file and ("/telemetry/" in file or file.endswith("/tracing.py"))

    once = 2  # to find out that there is none
    assert python_calls(lambda: executed(False, 20, MemoryStore()), is_of_tracing) == once
    assert python_calls(lambda: executed(False, 40, MemoryStore()), is_of_tracing) == once
    assert python_calls(lambda: executed(OTel(TracerProvider()), 20), is_of_tracing) > 20


def test_a_trace_that_is_not_sampled_costs_a_few_python_calls_for_each_call() -> None:
    not_sampled = OTel(TracerProvider(sampler=ALWAYS_OFF))
    assert for_a_call(not_sampled) - for_a_call(False) < 25


def test_a_span_for_each_call_and_attempt_costs_a_bounded_number_of_python_calls() -> None:
    with exporting_to(Drops()) as provider:
        assert for_a_call(OTel(provider, detail="calls")) - for_a_call(False) < 170


def test_a_collector_that_hangs_does_not_slow_a_run() -> None:
    hangs = Hangs()
    with exporting_to(Drops()) as provider:
        answered = python_calls(lambda: executed(OTel(provider)))
    with exporting_to(hangs) as provider:
        unanswered = python_calls(lambda: executed(OTel(provider)))
        assert hangs.is_asked.is_set()
    assert unanswered < 1.1 * answered


def test_what_waits_is_not_waited_for_longer_than_a_run_has_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Hangs()
    with exporting_to(hangs) as provider:
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        monkeypatch.setattr(metrics, "get_meter_provider", metrics.NoOpMeterProvider)
        executed(OTel(provider), 5)
        send_waiting()  # else this never ends
        assert not hangs.is_over.is_set()
