"""A tracer, a collector or a program with faults: results stay as they are, and what is told stays true."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import pytest

from rh_agents import ExecutionState, Injected, RetryPolicy, agent, run, tool
from rh_agents.core.errors import StoreError

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from rh_agents.telemetry.otel import OTel
from tests.doubles import HookedStore
from tests.telemetry.kit import Spans, is_error
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
