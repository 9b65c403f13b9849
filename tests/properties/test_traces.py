"""Runs of every shape are traced truly: each span ends once, below what made it, and what was paid is there once.

The same runs are exported from their journals, which must come to the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rh_agents import ExecutionState, MemoryStore, RetryPolicy, Usage, agent, llm, parallel, report_usage, tool

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from rh_agents.telemetry.otel import OTel
from tests.properties.virtual import run_virtually
from tests.telemetry.kit import Spans, context_of
from tests.telemetry.test_export import about, expect_equal, exported, journal


class Boom(Exception):
    """What calls raise."""


@dataclass(frozen=True)
class Work:
    """A call of a tool or of a model: it fails so often, and takes so long each time."""

    kind: str
    fails: int
    seconds: float


@dataclass(frozen=True)
class Flow:
    """An agent that does these one after the other."""

    steps: tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    """Members side by side, within an agent."""

    members: tuple[Any, ...]
    workers: int
    strategy: str
    timeout: float | None


WORK = st.builds(
    Work,
    kind=st.sampled_from(["once", "often", "timed", "ask"]),
    fails=st.sampled_from([0, 0, 1, 3]),
    seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)


def _larger(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    flows = st.builds(Flow, st.lists(below, max_size=3).map(tuple))
    groups = st.builds(
        Group,
        members=st.lists(below, max_size=4).map(tuple),
        workers=st.integers(1, 3),
        strategy=st.sampled_from(["fail_slow", "fail_slow", "fail_fast"]),
        timeout=st.sampled_from([None, None, 2.0]),
    )
    return flows | groups


PLANS = st.recursive(WORK, _larger, max_leaves=12)
CANCELLED = st.sampled_from([None, None, 0.0, 0.6, 1.2])


@dataclass
class Seen:
    """What the functions themselves know of where they are."""

    spans: dict[int, int] = field(default_factory=dict)
    callers: dict[int, int] = field(default_factory=dict)
    tries: Counter[Any] = field(default_factory=Counter)
    numbers: Any = field(default_factory=itertools.count)

    def forget(self) -> None:
        """Another execution begins."""
        self.spans.clear()
        self.callers.clear()


seen = Seen()
"""Of the execution under way."""
caller: ContextVar[int] = ContextVar("caller", default=-1)


@contextmanager
def inside() -> Iterator[None]:
    """A function: it notes which span is current, and by which function it was called."""
    number = next(seen.numbers)
    seen.callers[number] = caller.get()
    seen.spans[number] = trace.get_current_span().get_span_context().span_id
    token = caller.set(number)
    try:
        yield
    finally:
        caller.reset(token)


async def work(place: str, plan: Work) -> str:
    with inside():
        seen.tries[place] += 1
        if plan.kind == "ask":
            report_usage(Usage(input_tokens=2, output_tokens=1, requests=1, cost=0.5))
        await asyncio.sleep(plan.seconds)
        if seen.tries[place] <= plan.fails:
            raise Boom(place)
        return place


AT_ONCE = RetryPolicy(max_attempts=2, initial_delay=0.25, jitter=False)


@tool
async def once(place: str, plan: Work) -> str:
    return await work(place, plan)


@tool(retry=AT_ONCE)
async def often(place: str, plan: Work) -> str:
    return await work(place, plan)


@tool(retry=AT_ONCE, timeout=1.0)
async def timed(place: str, plan: Work) -> str:
    return await work(place, plan)


@llm(retry=AT_ONCE)
async def ask(place: str, plan: Work) -> str:
    return await work(place, plan)


TOOLS: dict[str, Any] = {"once": once, "often": often, "timed": timed, "ask": ask}


@agent
async def flow(place: str, plan: Flow) -> None:
    with inside():
        for index, step in enumerate(plan.steps):
            with suppress(Exception):
                await made(f"{place}.{index}", step)


@agent
async def side_by_side(place: str, plan: Group) -> None:
    with inside():
        async with parallel(
            max_workers=plan.workers, error_strategy=plan.strategy, timeout=plan.timeout, name="members"
        ) as p:
            for index, member in enumerate(plan.members):
                p.add(made(f"{place}.{index}", member))
            await p.gather()


def made(place: str, plan: Any) -> Any:
    """The call of a plan."""
    if isinstance(plan, Work):
        return TOOLS[plan.kind](place, plan)
    return (flow if isinstance(plan, Flow) else side_by_side)(place, plan)


class Ends(SpanProcessor):
    """Counts how often each span began and ended."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.begun[span.get_span_context().span_id] += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.ended[context_of(span).span_id] += 1


def expect_right_parents(spans: Sequence[ReadableSpan]) -> None:
    """Each function ran in a span below that of the function that called it; each member right below its group."""
    known = {context_of(span).span_id: span for span in spans}
    those = set(seen.spans.values())

    def caller_of(span_id: int) -> int | None:
        parent = known[span_id].parent
        while parent is not None and (parent.span_id not in those or parent.span_id == span_id):
            parent = known[parent.span_id].parent
        return None if parent is None else parent.span_id

    for number, span_id in seen.spans.items():
        if span_id in known:
            assert caller_of(span_id) == seen.spans.get(seen.callers[number])
    for span in spans:
        if "rh_agents.group.index" in about(span):
            assert span.parent is not None
            group = known[span.parent.span_id]
            assert about(span)["rh_agents.address"].startswith(f"{about(group)['rh_agents.address']}[")


async def execute(plan: Any, store: MemoryStore, spans: Spans, moment: float | None) -> None:
    """Execute the plan once; `moment` is when it is cancelled."""

    async def body() -> None:
        async with ExecutionState(store=store, run_id="monday", tracing=OTel(spans.provider)):
            await made("0", plan)

    task = asyncio.ensure_future(body())
    if moment is not None:
        asyncio.get_running_loop().call_later(moment, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def money(spans: Sequence[ReadableSpan]) -> float:
    return float(sum(about(span).get("rh_agents.usage.cost", 0.0) for span in spans))


@settings(max_examples=150)
@given(PLANS, CANCELLED)
@example(Flow(()), 0.0)  # cancelled while it is being closed
def test_every_span_ends_once_below_what_made_it_and_usage_is_that_of_the_journal(
    plan: Any, moment: float | None
) -> None:
    async def main() -> None:
        store, paid = MemoryStore(), 0.0
        seen.tries.clear()
        for cancelled_at in (moment, None):
            seen.forget()
            spans, ends = Spans(), Ends()
            spans.provider.add_span_processor(ends)
            await execute(plan, store, spans, cancelled_at)
            assert ends.begun == ends.ended
            assert set(ends.begun.values()) == {1}
            expect_right_parents(spans.all)
            paid += money(spans.all)
        events = await journal(store)
        assert paid == sum(each.event.usage.cost for each in events if each.event.usage is not None)
        past = await exported(store)
        expect_equal(past, events)
        assert money(past.all) == paid

    run_virtually(main)
