"""A process that is killed: what has arrived of its trace is true, and the journal has the rest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rh_agents import open_store, run
from rh_agents.core.ports import Execution

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan

from rh_agents.cli import main
from rh_agents.telemetry.otel import OTel
from tests.services.otlp_sink import Received, sink
from tests.telemetry import killed
from tests.telemetry.kit import Spans, context_of
from tests.telemetry.test_export import Exported, about, expect_equal, exported, journal

EXPORTING = 0.5
"""Seconds that an export may take on a machine that is busy."""


def attribute(span: Span, name: str) -> str:
    found: str
    (found,) = [each.value.string_value for each in span.attributes if each.key == name]
    return found


def traced_until_it_is_killed(url: str, received: Received) -> None:
    """Execute the program, which kills itself at an item."""
    command = [sys.executable, "-m", "tests.telemetry.killed", url, received.endpoint, "40"]
    died = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert died.returncode == -9


def resumed(url: str, live: Spans) -> tuple[list[Any], Exported]:
    """Resume the run: what its journal had before, and its spans of all executions made of what it has now."""

    async def resume() -> tuple[list[Any], Exported]:
        store = open_store(url)
        before = await journal(store)
        assert await run(killed.flow, killed.COUNT, store=store, run_id="monday", tracing=OTel(live.provider)) == 60
        past = await exported(store)
        expect_equal(past, await journal(store))
        info = await store.find_run("monday")
        assert info is not None
        expect_cut_off_in(info.executions[0], past)
        await store.aclose()
        return before, past

    return asyncio.run(resume())


def test_what_arrived_of_a_killed_run_is_true_and_its_resumed_trace_and_its_journal_have_the_rest(
    tmp_path: Path,
) -> None:
    url, live = str(tmp_path / "runs.db"), Spans()
    with sink() as received:
        traced_until_it_is_killed(url, received)
    before, past = resumed(url, live)
    expect_the_truth(received.spans, live, before)
    assert sum(about(span).get("rh_agents.usage.cost", 0) for span in past.named("chat ask")) == 0.5 * killed.COUNT


@pytest.mark.slow
def test_with_a_real_receiver_as_well_and_what_is_exported_there_is_the_journal(tmp_path: Path) -> None:
    receivers = pytest.importorskip("tests.services.otlp_receiver", reason="rotel is not installed")
    url, live = str(tmp_path / "runs.db"), Spans()
    with receivers.receiver(tmp_path) as received:  # hands on what it has when it is ended
        traced_until_it_is_killed(url, received)
    before, past = resumed(url, live)
    expect_the_truth(received.spans, live, before)
    with receivers.receiver(tmp_path) as received:
        for _ in range(2):
            assert main(["export", "monday", "--otlp", received.endpoint, "--store", url]) == 0
        assert received.wait_for(2 * len(past.all)) == 2 * len(past.all)
    assert Counter(map(sent, received.spans)) == Counter({made(span): 2 for span in past.all})


def sent(span: Span) -> tuple[Any, ...]:
    """What a receiver has of a span."""
    where = (span.trace_id, span.span_id, span.parent_span_id)
    return (
        *where,
        span.name,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        tuple(sorted(map(told, span.attributes))),
    )


def told(attribute: KeyValue) -> tuple[str, str]:
    """An attribute, its value as a text."""
    return attribute.key, str(getattr(attribute.value, str(attribute.value.WhichOneof("value"))))


def made(span: ReadableSpan) -> tuple[Any, ...]:
    """The same of a span that was made of the journal."""
    of, parent = context_of(span), span.parent
    where = (
        of.trace_id.to_bytes(16, "big"),
        of.span_id.to_bytes(8, "big"),
        b"" if parent is None else parent.span_id.to_bytes(8, "big"),
    )
    attributes = tuple(sorted((name, str(value)) for name, value in about(span).items()))
    return (*where, span.name, span.start_time, span.end_time, attributes)


def expect_the_truth(arrived: list[Span], live: Spans, before: list[Any]) -> None:
    """What arrived until the process was killed, and what it did when it was resumed, come to what the journal has."""
    outcomes = {each.event.key: each.event for each in before if each.has_outcome}
    expect_true(arrived)
    expect_only_the_last_ones_missing(arrived, outcomes)
    expect_the_rest(live, arrived, outcomes)


def expect_cut_off_in(execution: Execution, past: Exported) -> None:
    """What was under way when the process died ends with its last sign of life."""
    cut_off = [span for span in past.all if about(span).get("rh_agents.status") == "unknown"]
    assert {"invoke_agent flow", "group steps"} <= {span.name for span in cut_off}
    assert execution.ended_at is not None
    assert {span.end_time for span in cut_off} == {round(execution.ended_at * 1e9)}


def expect_true(arrived: list[Span]) -> None:
    """Right parents, and no call twice."""
    assert len(arrived) > 20
    assert len({span.span_id for span in arrived}) == len(arrived)
    assert set(Counter(attribute(span, "rh_agents.key") for span in arrived).values()) == {1}
    steps = {attribute(span, "rh_agents.address"): span for span in arrived if span.name == "execute_tool step"}
    assert len({span.parent_span_id for span in steps.values()}) == 1, "all are members of one group"
    for span in arrived:
        if span.name == "chat ask":
            above = steps.get(attribute(span, "rh_agents.address").rpartition("::")[0])
            assert above is None or span.parent_span_id == above.span_id
    assert len({span.trace_id for span in arrived}) == 1


def expect_only_the_last_ones_missing(arrived: list[Span], outcomes: dict[Any, Any]) -> None:
    """What the journal has and the receiver has not, ended within the last interval."""
    keys = {attribute(span, "rh_agents.key") for span in arrived}
    killed_at = max(event.timestamp for event in outcomes.values())
    missing = [killed_at - event.timestamp for key, event in outcomes.items() if key not in keys]
    assert all(age <= killed.INTERVAL + EXPORTING for age in missing), sorted(missing)


def expect_the_rest(live: Spans, arrived: list[Span], outcomes: dict[Any, Any]) -> None:
    """The resumed trace makes nothing again that was recorded, says how much that was, and links to the first one."""
    root, group = live.one("invoke_workflow flow"), live.one("group steps")
    members = [event for event in outcomes.values() if event.name == "step"]
    assert about(group)["rh_agents.recovered"] == len(members)
    assert about(root)["rh_agents.recovered"] >= len(members)
    assert [link.context.trace_id.to_bytes(16, "big") for link in root.links] == [arrived[0].trace_id]
    assert context_of(root).trace_id.to_bytes(16, "big") != arrived[0].trace_id
    again = {about(span)["rh_agents.key"] for span in live.all if "rh_agents.key" in about(span)}
    assert not again & set(outcomes)
    assert len(live.named("execute_tool step")) == killed.COUNT - len(members)
