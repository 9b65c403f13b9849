"""`OTel(metrics=...)`: what is counted of runs, with few attributes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rh_agents import (
    ConcurrencyLimit,
    RetryPolicy,
    Usage,
    agent,
    forget_secret,
    llm,
    parallel,
    register_secret,
    report_usage,
    run,
    tool,
)

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import get_meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from rh_agents.telemetry import _names as names
from rh_agents.telemetry._metrics import MOST, OTHER, Meters, meters_of
from rh_agents.telemetry.otel import OTel
from tests.telemetry.kit import Spans, context_of

ALLOWED = {
    names.ACTOR, names.GROUP, names.STATUS, names.REQUEST_MODEL, names.LIMITER, names.OPERATION, names.TOKEN_TYPE,
}  # fmt: skip
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
TRIES: dict[int, int] = {}
FAILS = -1
LIMIT = ConcurrencyLimit(1, name="server")


class Meter:
    """What a provider would export."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider: MeterProvider = MeterProvider([self._reader])

    @property
    def all(self) -> dict[str, Metric]:
        """By name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """Counts or sums, by the values of the attributes in the order of their names."""
        found: dict[tuple[str, ...], Any] = {}
        for point in self.all[name].data.data_points:
            about: Mapping[str, Any] = point.attributes or {}
            found[tuple(str(about[key]) for key in sorted(about))] = getattr(point, "value", getattr(point, "count", 0))
        return found

    def close(self) -> None:
        self.provider.shutdown()


@pytest.fixture
def meter() -> Meter:
    TRIES.clear()
    return Meter()


@tool(retry=RetryPolicy(max_attempts=2, initial_delay=0.0))
async def fetch(number: int) -> int:
    TRIES[number] = TRIES.get(number, 0) + 1
    if number == 0 or (number == 1 and TRIES[number] == 1):
        raise ValueError(f"not {number}")
    return number


@tool(limits=LIMIT)
async def limited(number: int) -> int:
    await asyncio.sleep(0.001)
    return number


@llm
async def ask(question: str) -> str:
    report_usage(Usage(input_tokens=10, output_tokens=5, requests=1, cost=0.25))
    return question


@tool(cache="run")
async def cached(number: int) -> int:
    return number


@agent
async def survey(count: int) -> int:
    async with parallel(max_workers=3, name="pages") as p:
        p.map(fetch, range(count))
        found = len([result async for result in p.stream()])
    async with parallel(name="limited") as p:
        p.map(limited, range(2))
        await p.gather()
    for _ in range(2):
        await cached(1)
    await ask("and now?")
    if TRIES.pop(FAILS, 0):
        raise ValueError("it is broken")
    return found


def test_calls_are_counted_by_actor_group_and_status_and_retries_waits_tokens_and_cost(meter: Meter) -> None:
    asyncio.run(
        run(survey, 4, store=":memory:", run_id="monday", tracing=OTel(Spans().provider, metrics=meter.provider))
    )
    expected = {
        ("fetch", "pages", "completed"): 3,
        ("fetch", "pages", "failed"): 1,
        ("limited", "limited", "completed"): 2,
        ("cached", "", "completed"): 1,
        ("ask", "", "completed"): 1,
        ("survey", "", "completed"): 1,
    }
    assert meter.points("rh_agents.calls") == expected
    assert meter.points("rh_agents.call.duration") == expected
    assert meter.points("rh_agents.call.retries") == {("fetch", "pages"): 2}
    assert meter.points("rh_agents.limiter.wait") == {("server",): 1}
    assert meter.points("rh_agents.usage.cost") == {("ask", "ask"): 0.25}
    assert meter.points("gen_ai.client.token.usage") == {("chat", "ask", "input"): 1, ("chat", "ask", "output"): 1}
    assert meter.points("gen_ai.client.operation.duration") == {("chat", "ask"): 1}
    assert meter.points("rh_agents.calls.cached") == {(): 1}
    assert meter.points("rh_agents.runs") == {("completed",): 1}
    assert set(meter.points("rh_agents.calls.in_flight").values()) == {0}


def test_what_is_recovered_and_what_a_store_writes_is_counted(meter: Meter, tmp_path: Path) -> None:
    async def main() -> None:
        tracing = OTel(Spans().provider, metrics=meter.provider)
        TRIES[FAILS] = 1
        with pytest.raises(ValueError, match="broken"):
            await run(survey, 2, store=str(tmp_path / "runs.db"), run_id="monday", tracing=tracing)
        await run(survey, 2, store=str(tmp_path / "runs.db"), run_id="monday", tracing=tracing)

    asyncio.run(main())
    assert meter.points("rh_agents.runs") == {("failed",): 1, ("completed",): 1}
    assert meter.points("rh_agents.calls.recovered") == {("ask",): 1, ("fetch",): 1, ("limited",): 2, ("cached",): 2}
    (batches,) = meter.all["rh_agents.store.batch.size"].data.data_points
    (commits,) = meter.all["rh_agents.store.commit.duration"].data.data_points
    assert batches.count == commits.count > 0  # type: ignore[union-attr]
    assert commits.sum > 0  # type: ignore[union-attr]


def test_while_calls_run_they_are_in_flight(meter: Meter) -> None:
    @tool
    async def look(number: int) -> int:
        return int(meter.points("rh_agents.calls.in_flight")[("look",)])

    @agent
    async def flow(number: int) -> int:
        return await look(number)

    assert asyncio.run(run(flow, 1, tracing=OTel(Spans().provider, metrics=meter.provider))) == 1


def test_calls_are_counted_also_where_no_spans_are_made_of_them(meter: Meter) -> None:
    tracing = OTel(Spans(ALWAYS_OFF).provider, metrics=meter.provider, detail="groups")
    asyncio.run(run(survey, 4, tracing=tracing))
    assert sum(meter.points("rh_agents.calls").values()) == 9


def test_all_that_is_measured_of_calls_has_exemplars_that_lead_to_a_trace(meter: Meter) -> None:
    spans = Spans()
    asyncio.run(run(survey, 1, tracing=OTel(spans.provider, metrics=meter.provider)))
    known = {context_of(span).span_id: span.name for span in spans.all}
    collected = meter.all  # once: what is collected takes its exemplars with it

    def led_to(name: str) -> set[str]:
        found = [each.span_id for point in collected[name].data.data_points for each in point.exemplars]
        return {known[span_id] for span_id in found if span_id is not None}

    everything = {"chat ask", "invoke_agent survey", "execute_tool fetch", "execute_tool limited"}
    assert everything <= led_to("rh_agents.call.duration")
    assert led_to("rh_agents.limiter.wait") == {"execute_tool limited"}
    assert led_to("gen_ai.client.operation.duration") == {"chat ask"}
    assert led_to("gen_ai.client.token.usage") == {"chat ask"}


def test_the_attributes_are_few_and_their_values_are_bounded(meter: Meter) -> None:
    async def number(value: int) -> int:
        return value

    @agent
    async def flow(count: int) -> None:
        for each in range(count):
            async with parallel(name=f"group {each}") as p:
                p.add(tool(name=f"tool {each}")(number)(each))
                p.add(number(each), name=f"item {each}")
                await p.gather()

    asyncio.run(run(flow, MOST + 5, tracing=OTel(Spans().provider, metrics=meter.provider)))
    for metric in meter.all.values():
        for point in metric.data.data_points:
            assert set(point.attributes or {}) <= ALLOWED
            assert "monday" not in str(point.attributes)
    seen = meter.points("rh_agents.calls")
    assert len({actor for actor, _, _ in seen}) <= MOST + 1
    assert len({group for _, group, _ in seen}) <= MOST + 2
    assert OTHER in {actor for actor, _, _ in seen}
    assert not [actor for actor, _, _ in seen if actor.startswith("item")]


NAMES = st.sampled_from("abcdefgh") | st.text(max_size=3)


@settings(max_examples=50)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES, NAMES), max_size=200), st.integers(1, 4), st.integers(1, 6))
@example([(actor, group, group, group) for actor in "abcde" for group in "abcde"], 4, 6)
def test_whatever_a_program_calls_its_actors_groups_models_and_limits_there_are_only_so_many_series(
    called: list[tuple[str, str, str, str]], most: int, most_pairs: int
) -> None:
    meter = Meter()
    meters = Meters(get_meter("test", meter_provider=meter.provider), most, most_pairs)
    for actor, group, model, limiter in called:
        shown = meters.bounded(names.ACTOR, actor)
        where = meters.paired(shown, names.GROUP, meters.bounded(names.GROUP, group))
        meters.calls.add((*where, (names.STATUS, "completed")))
        meters.cost.add(meters.paired(shown, names.REQUEST_MODEL, meters.bounded(names.REQUEST_MODEL, model)))
        meters.waited.record(1, {names.LIMITER: meters.bounded(names.LIMITER, limiter)})
    if called:
        assert len(meter.points("rh_agents.calls")) <= most_pairs + most + 1
        assert len(meter.points("rh_agents.usage.cost")) <= most_pairs + most + 1
        assert len(meter.points("rh_agents.limiter.wait")) <= most + 1
        assert sum(meter.points("rh_agents.calls").values()) == len(called), "each call is counted all the same"


def test_no_attribute_has_a_secret(meter: Meter) -> None:
    @agent
    async def flow(count: int) -> None:
        async with parallel(name="pages of hunter2hunter2") as p:
            p.map(fetch, range(2, count))
            await p.gather()

    register_secret("password", "hunter2hunter2")
    try:
        asyncio.run(run(flow, 4, tracing=OTel(Spans().provider, metrics=meter.provider)))
    finally:
        forget_secret("password")
    assert meter.points("rh_agents.calls")[("fetch", "pages of <secret:password>", "completed")] == 2


def test_a_tracer_that_fails_loses_no_count_of_what_is_in_flight(meter: Meter) -> None:
    spans = Spans()
    tracing = OTel(spans.provider, metrics=meter.provider)
    spans.provider.shutdown()
    asyncio.run(run(survey, 2, tracing=tracing))
    assert set(meter.points("rh_agents.calls.in_flight").values()) == {0}


# -- the dashboard ----------------------------------------------------------------------------------------------------

_UNITS = {"s": "_seconds"}


def prometheus_names(metric: Metric) -> set[str]:
    """Under which names Prometheus has a metric that it gets by OTLP."""
    name = metric.name.replace(".", "_") + _UNITS.get(metric.unit or "", "")
    kind = type(metric.data).__name__
    if kind == "Histogram":
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {f"{name}_total"} if getattr(metric.data, "is_monotonic", False) else {name}


def queries(panel: Any) -> list[str]:
    """All queries of a dashboard."""
    found = [target["expr"] for target in panel.get("targets", [])]
    return found + [each for below in panel.get("panels", []) for each in queries(below)]


def test_the_dashboard_asks_for_metrics_that_there_are_and_for_all_of_them(meter: Meter, tmp_path: Path) -> None:
    tracing = OTel(Spans().provider, metrics=meter.provider)
    for _ in range(2):
        asyncio.run(run(survey, 4, store=str(tmp_path / "runs.db"), run_id="monday", tracing=tracing))
    emitted = {name: prometheus_names(metric) for name, metric in meter.all.items()}
    assert set(emitted) == {
        getattr(names, name) for name in dir(names) if name.startswith("METRIC_") or name in ("DURATION", "TOKENS")
    }
    asked = " ".join(queries(json.loads(DASHBOARD.read_text())))
    words = set(re.findall(r"\b(?:rh_agents|gen_ai)_\w+", asked))
    labels = {label.replace(".", "_") for label in ALLOWED}
    known = set().union(*emitted.values())
    assert words - labels <= known, "it asks for what there is not"
    assert {name for name, its in emitted.items() if not its & words} == set(), "it leaves these out"


def test_half_a_character_in_a_name_costs_a_receiver_no_attribute() -> None:
    shown = meters_of(MeterProvider()).bounded(names.LIMITER, "a\udcff")
    assert shown == "a\\udcff"
