"""A tracer, a collector or a program with faults: results stay as they are, and what is told stays true."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from typing import Annotated, Any

import pytest

from rh_agents import (
    ConcurrencyLimit,
    ExecutionState,
    Injected,
    MemoryStore,
    RetryPolicy,
    RunAwaiting,
    Usage,
    agent,
    current,
    forget_secret,
    llm,
    parallel,
    register_secret,
    report_usage,
    run,
    tool,
)
from rh_agents.core.context import trace_headers
from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import RedactingFilter
from rh_agents.logs import CallFilter

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from rh_agents.telemetry.export import spans_of_run
from rh_agents.telemetry.otel import OTel
from tests.doubles import HookedStore
from tests.properties.virtual import run_virtually
from tests.telemetry.kit import Spans, context_of, is_error
from tests.telemetry.test_export import about

AT_ONCE = RetryPolicy(max_attempts=2, initial_delay=0.0)


@pytest.fixture
def spans() -> Spans:
    return Spans()


def everything(spans: Spans) -> OTel:
    """Spans and metrics."""
    return OTel(spans.provider, metrics=MeterProvider([InMemoryMetricReader()]))


@tool
async def look(number: int) -> int:
    return number


# -- results ----------------------------------------------------------------------------------------------------------


def python_frames() -> int:
    """How many stand on the stack."""
    frame, found = sys._getframe(), 0
    while frame.f_back is not None:
        frame, found = frame.f_back, found + 1
    return found


@agent(retry=AT_ONCE)
async def nested(depth: int) -> int:
    return python_frames() if depth == 0 else await nested(depth - 1)


def test_a_tracer_takes_nothing_of_the_stack_so_calls_nest_as_deep(spans: Spans) -> None:
    def frames(depth: int, tracing: Any) -> int:
        found: int = asyncio.run(run(nested, depth, tracing=tracing))
        return found

    without = frames(20, False)
    assert frames(20, everything(spans)) == without
    assert len(spans.named("attempt 1")) == 21


def test_an_attempt_that_raises_what_its_caller_is_handling_has_failed_all_the_same(spans: Spans) -> None:
    error = ValueError("always the same one")

    @tool(retry=AT_ONCE)
    async def raises(number: int) -> None:
        raise error

    @tool(retry=AT_ONCE)
    async def returns(number: int) -> None:
        return None

    async def main() -> None:
        async with ExecutionState(tracing=OTel(spans.provider)):
            try:
                raise error
            except ValueError:
                await returns(1)
                with pytest.raises(ValueError, match="always"):
                    await raises(1)

    asyncio.run(main())
    assert not any(
        map(is_error, [spans.one("execute_tool returns"), *spans.children(spans.one("execute_tool returns"))])
    )
    assert all(map(is_error, spans.children(spans.one("execute_tool raises"))))


def test_a_call_whose_outcome_could_not_be_recorded_has_failed(spans: Spans) -> None:
    class Full(HookedStore):
        is_full = False

        def before_adding(self) -> None:
            if self.is_full:
                raise StoreError("the disk is full")

    @tool
    async def fills(store: Annotated[Full, Injected]) -> None:
        store.is_full = True

    async def main() -> None:
        store = Full()
        async with ExecutionState(store=store, tracing=everything(spans)):
            await fills(store)

    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(main())
    span = spans.one("execute_tool fills")
    assert about(span)["rh_agents.status"] == "failed"
    assert about(span)["error.type"] == "StoreError"


# -- who else has a say -----------------------------------------------------------------------------------------------


def test_a_provider_that_is_shut_down_in_the_middle_changes_nothing(spans: Spans) -> None:
    @agent
    async def flow(count: int) -> int:
        await look(0)
        spans.provider.shutdown()
        async with parallel(name="pages") as p:
            p.map(look, range(count))
            return len(await p.gather())

    assert asyncio.run(run(flow, 3, tracing=everything(spans))) == 3


def test_a_program_whose_environment_switches_the_sdk_off_runs_as_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    meters = MeterProvider([InMemoryMetricReader()])

    async def main() -> dict[str, str]:
        async with ExecutionState(tracing=OTel(TracerProvider(), metrics=meters, new_root_over=0)):
            async with parallel(name="pages") as p:
                p.map(look, range(3))
                assert len(await p.gather()) == 3
            return trace_headers()

    assert asyncio.run(main()) == {}


def test_without_an_sdk_the_trace_of_who_called_is_handed_on() -> None:
    caller = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))

    @tool
    async def request(number: int) -> str:
        return trace_headers()["traceparent"]

    async def main() -> str:
        with trace.use_span(trace.NonRecordingSpan(caller)):
            async with ExecutionState(tracing=OTel(trace.NoOpTracerProvider())):
                return await request(1)

    assert asyncio.run(main()).split("-")[1] == f"{1:032x}"


def test_a_run_within_a_run_has_its_own_tracer_and_the_one_around_goes_on(spans: Spans) -> None:
    others = Spans()

    @agent
    async def inner(number: int) -> int:
        return await look(number)

    @agent
    async def outer(number: int) -> int:
        return await run(inner, number, tracing=OTel(others.provider)) + await look(number)

    assert asyncio.run(run(outer, 1, tracing=OTel(spans.provider))) == 2
    assert spans.tree() == ["invoke_workflow outer", ["invoke_agent outer", ["execute_tool look"]]]
    assert others.tree() == ["invoke_workflow inner", ["invoke_agent inner", ["execute_tool look"]]]
    root, caller = others.one("invoke_workflow inner"), context_of(spans.one("invoke_agent outer"))
    assert root.parent is not None
    assert root.parent.span_id == caller.span_id


def test_a_caller_that_is_not_sampled_gets_no_traces_of_the_members_either(spans: Spans) -> None:
    @agent
    async def flow(count: int) -> None:
        async with parallel(name="pages") as p:
            p.map(look, range(count))
            await p.gather()

    async def main() -> None:
        with Spans(ALWAYS_OFF).provider.get_tracer("server").start_as_current_span("request"):
            await run(flow, 5, tracing=OTel(spans.provider, new_root_over=2))

    asyncio.run(main())
    assert spans.all == ()


def test_baggage_reaches_the_program_and_neither_the_journal_nor_servers(spans: Spans) -> None:
    @tool
    async def request(number: int) -> tuple[object, list[str]]:
        return baggage.get_baggage("user"), sorted(trace_headers())

    async def main() -> tuple[Any, list[Any]]:
        store = MemoryStore()
        token = attach(baggage.set_baggage("user", "ann"))
        async with ExecutionState(store=store, run_id="monday", tracing=OTel(spans.provider)):
            seen = await request(1)
        detach(token)
        return seen, [each.event.control async for each in store.events("monday") if each.event.control is not None]

    seen, (recorded,) = asyncio.run(main())
    assert seen == ("ann", ["traceparent"])
    assert list(recorded["arguments"]["context"]) == ["traceparent"]


def test_a_later_start_finds_the_trace_whichever_propagators_it_has(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def main() -> None:
        store = MemoryStore()
        await run(nested, 0, store=store, run_id="monday", tracing=OTel(spans.provider))
        propagate.set_global_textmap(CompositePropagator([]))
        await run(nested, 0, store=store, run_id="monday", tracing=OTel(spans.provider))

    before = propagate.get_global_textmap()
    try:
        asyncio.run(main())
    finally:
        propagate.set_global_textmap(before)
    first, second = spans.named("invoke_workflow nested")
    assert [link.context.trace_id for link in second.links] == [context_of(first).trace_id]


# -- what waits, and what must not be seen ----------------------------------------------------------------------------


def test_what_sleeps_is_no_open_span_and_what_asked_for_it_has_ended(spans: Spans) -> None:
    @agent
    async def sleeps(number: int) -> None:
        await current().run.sleep(3600)

    with pytest.raises(RunAwaiting):
        asyncio.run(run(sleeps, 1, store=MemoryStore(), run_id="monday", tracing=OTel(spans.provider)))
    assert spans.tree() == ["invoke_workflow sleeps", ["invoke_agent sleeps"]]
    assert {about(span)["rh_agents.status"] for span in spans.all} == {"awaiting"}


def test_a_call_that_may_not_begin_while_its_run_is_paused_has_no_span_until_then(spans: Spans) -> None:
    begun: list[str] = []

    class Begun(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            begun.append(span.name)

    spans.provider.add_span_processor(Begun())

    async def main() -> None:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id="monday", tracing=OTel(spans.provider)):
            await store.control("monday").pause()
            call = asyncio.ensure_future(in_a_task())
            await asyncio.sleep(100)
            assert begun == ["invoke_workflow run"]
            await store.control("monday").unpause()
            await call

    async def in_a_task() -> int:
        return await look(1)

    run_virtually(main)
    assert begun == ["invoke_workflow run", "execute_tool look"]


SECRET = "hunter2hunter2"


@llm(name=f"model {SECRET}")
async def ask(question: str) -> str:
    report_usage(Usage(input_tokens=1, output_tokens=1, requests=1, cost=0.5))
    return question


@tool(name=f"tool {SECRET}", limits=ConcurrencyLimit(1, name=f"limit {SECRET}"))
async def limited(number: int) -> int:
    logging.getLogger("program").warning("says %s", SECRET)
    await asyncio.sleep(0)
    return number


@agent(name=f"agent {SECRET}", version=f"of {SECRET}")
async def leaks(question: str) -> str:
    async with parallel(name=f"group {SECRET}") as p:
        for number in range(2):
            p.add(limited(number), name=f"member {SECRET}")
        p.add(ask(question))
        await p.gather()
    raise ValueError(f"not {SECRET}")


def test_no_span_metric_or_log_record_has_a_secret_whatever_has_it_in_its_name(spans: Spans) -> None:
    reader, written = InMemoryMetricReader(), io.StringIO()
    tracing = OTel(spans.provider, content=True, recovered=True, metrics=MeterProvider([reader]))
    handler = logging.StreamHandler(written)
    for each in (CallFilter(), RedactingFilter()):
        handler.addFilter(each)
    handler.setFormatter(logging.Formatter("%(run_id)s %(address)s %(message)s"))

    async def main() -> list[Any]:
        store = MemoryStore()
        for _ in range(2):
            with pytest.raises(ValueError, match="not hunter2"):
                await run(leaks, f"is it {SECRET}?", store=store, run_id="monday", tracing=tracing)
        return [span async for span in spans_of_run(store, "monday")]

    register_secret("password", SECRET)
    logging.getLogger().addHandler(handler)
    try:
        past = asyncio.run(main())
    finally:
        logging.getLogger().removeHandler(handler)
        forget_secret("password")
    told = {span.name: span.to_json() for span in (*spans.all, *past)}
    assert "execute_tool tool <secret:password>" in told
    assert {name for name, text in told.items() if SECRET in text} == set()
    data = reader.get_metrics_data()
    assert data is not None
    assert SECRET not in data.to_json()
    assert "says <secret:password>" in written.getvalue()
    assert SECRET not in written.getvalue()
