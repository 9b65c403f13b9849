"""`rh-agents export RUN --otlp URL`: a past run as spans, made of its journal, with its real times."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rh_agents import (
    MemoryStore,
    RetryPolicy,
    Store,
    Usage,
    agent,
    current,
    llm,
    open_store,
    parallel,
    report_usage,
    run,
    tool,
)
from rh_agents.core.errors import RunAwaiting, UsageError
from rh_agents.core.ports import RecordedEvent
from rh_agents.errors import UnreadFailures

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from rh_agents.cli import main
from rh_agents.telemetry._past import PastSpans
from rh_agents.telemetry._sdk import Sparing
from rh_agents.telemetry.export import NotExported, export_run, otlp_exporter, spans_of_run
from rh_agents.telemetry.otel import OTel
from tests.services.otlp_sink import sink
from tests.telemetry.kit import Spans, context_of, is_error

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0)
FINAL = {"completed", "failed", "cancelled", "awaiting"}
TRIES: Counter[object] = Counter()


@pytest.fixture(autouse=True)
def _no_tries() -> None:
    TRIES.clear()


@tool(retry=AT_ONCE)
async def flaky(number: int) -> int:
    TRIES[number] += 1
    if number % 2 and TRIES[number] < 2:
        report_usage(Usage(cost=0.125))
        raise ValueError("not yet")
    return number


@llm
async def ask(question: str) -> str:
    report_usage(Usage(input_tokens=10, output_tokens=5, requests=1, cost=0.25))
    return question


@agent
async def handle(number: int) -> str:
    await flaky(number)
    return await ask(f"what is {number}?")


@agent
async def survey(count: int, fails: bool = False) -> int:
    async with parallel(max_workers=3, name="pages") as p:
        for number in range(count):
            p.add(handle(number))
        found = len(await p.gather())
    await ask("and now?")
    if fails and not TRIES["survey"]:
        TRIES["survey"] += 1
        raise ValueError("after the group")
    return found


class Exported(Spans):
    """Spans of a journal, looked at as those of a provider."""

    def __init__(self, spans: list[ReadableSpan]) -> None:
        super().__init__()
        self._spans = spans

    @property
    def all(self) -> list[ReadableSpan]:
        return self._spans


async def exported(store: Store, run_id: str = "monday", **options: Any) -> Exported:
    return Exported([span async for span in spans_of_run(store, run_id, **options)])


async def journal(store: Store, run_id: str = "monday") -> list[RecordedEvent]:
    return [each async for each in store.events(run_id)]


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def paths(spans: Sequence[ReadableSpan]) -> Counter[tuple[str, ...]]:
    """The names of each span and of all around it. A journal tells of attempts only where there were several."""
    known = {context_of(span).span_id: span for span in spans}

    def path(span: ReadableSpan) -> tuple[str, ...]:
        return (span.name,) if span.parent is None else (*path(known[span.parent.span_id]), span.name)

    return Counter(map(path, spans))


def usage_of(spans: Exported) -> tuple[int, float]:
    """Tokens and money, summed over the spans of calls."""
    names = ("gen_ai.usage.input_tokens", "rh_agents.usage.input_tokens")
    return (
        sum(about(span).get(name, 0) for span in spans.all for name in names),
        sum(about(span).get("rh_agents.usage.cost", 0.0) for span in spans.all),
    )


def expect_equal(spans: Exported, events: list[RecordedEvent]) -> None:
    """The spans say what the journal says: each end of a call once, with its time, status and usage."""
    ends = Counter(
        (event.key, event.execution_status.value, round(event.timestamp * 1e9))
        for event in (each.event for each in events if each.event.event_type.value not in ("question", "wait"))
        if event.key is not None and event.execution_status.value in FINAL and not event.from_cache
    )
    made = Counter(
        (about(span)["rh_agents.key"], about(span)["rh_agents.status"], span.end_time)
        for span in spans.all
        if "rh_agents.key" in about(span) and about(span)["rh_agents.status"] != "unknown"
    )
    assert made == ends
    starts = Counter(each.event.key for each in events if each.event.execution_status.value == "started")
    starts -= Counter(each.event.key for each in events if each.event.event_type.value in ("question", "wait"))
    starts.pop(None, None)
    assert Counter(about(span)["rh_agents.key"] for span in spans.all if "rh_agents.key" in about(span)) == starts
    used = [each.event.usage for each in events if each.event.usage is not None]
    assert usage_of(spans) == (sum(each.input_tokens for each in used), sum(each.cost for each in used))
    ids = Counter(context_of(span).span_id for span in spans.all)
    assert set(ids.values()) == {1}
    assert all(span.parent is None or span.parent.span_id in ids for span in spans.all)


def test_a_past_run_is_the_same_tree_as_it_was_live() -> None:
    live = Spans()

    async def main() -> Exported:
        store = MemoryStore()
        await run(survey, 3, run_id="monday", store=store, tracing=OTel(live.provider))
        past = await exported(store)
        expect_equal(past, await journal(store))
        return past

    past = asyncio.run(main())

    several = {span.parent.span_id for span in live.named("attempt 2") if span.parent is not None}
    kept = [
        span
        for span in live.all
        if not span.name.startswith("attempt") or (span.parent is not None and span.parent.span_id in several)
    ]
    assert paths(past.all) == paths(kept)
    for span in live.named("chat ask"):
        (same,) = [each for each in past.all if about(each).get("rh_agents.key") == about(span)["rh_agents.key"]]
        assert about(same) == about(span), "the attributes are those of the live span"


def test_a_run_of_several_executions_is_one_trace_that_links_to_the_live_ones() -> None:
    live = Spans()

    async def main() -> Exported:
        store = MemoryStore()
        with pytest.raises(ValueError, match="after the group"):
            await run(survey, count=2, fails=True, run_id="monday", store=store, tracing=OTel(live.provider))
        await run(survey, count=2, fails=True, run_id="monday", store=store, tracing=OTel(live.provider))
        past = await exported(store)
        expect_equal(past, await journal(store))
        return past

    past = asyncio.run(main())
    root = past.one("invoke_workflow survey")
    first, second = past.named("invoke_agent survey")
    assert {context_of(span).trace_id for span in past.all} == {context_of(root).trace_id}
    assert [link.context.trace_id for link in root.links] == [
        context_of(span).trace_id for span in live.named("invoke_workflow survey")
    ]
    assert (is_error(first), is_error(second)) == (True, False)
    assert past.children(root) == [first, second]
    assert about(root)["rh_agents.run.executions"] == 2
    assert [event.name for event in root.events] == ["resumed"]
    assert len(past.named("chat ask")) == 3, "what was recovered has no second span"


def test_to_export_again_gives_the_same_ids_also_when_the_run_has_gone_on() -> None:
    async def main() -> None:
        store = MemoryStore()
        with pytest.raises(ValueError, match="after the group"):
            await run(survey, count=2, fails=True, run_id="monday", store=store)
        before = await exported(store)
        assert [span.to_json() for span in before.all] == [span.to_json() for span in (await exported(store)).all]
        await run(survey, count=2, fails=True, run_id="monday", store=store)
        after = await exported(store)
        assert {context_of(span).span_id for span in before.all} < {context_of(span).span_id for span in after.all}
        other = MemoryStore()
        await run(survey, 2, run_id="tuesday", store=other)
        tuesday = await exported(other, "tuesday")
        assert not {context_of(span).span_id for span in after.all} & {context_of(span).span_id for span in tuesday.all}

    asyncio.run(main())


def test_attempts_have_their_times_their_error_and_the_delay_before_them() -> None:
    async def main() -> Exported:
        store = MemoryStore()
        await run(survey, 2, run_id="monday", store=store)
        return await exported(store)

    past = asyncio.run(main())
    (tried,) = [span for span in past.named("execute_tool flaky") if about(span).get("rh_agents.attempts")]
    first, second = past.children(tried)
    assert (first.name, second.name) == ("attempt 1", "attempt 2")
    assert (is_error(first), about(first)["error.type"]) == (True, "ValueError")
    assert (is_error(second), about(second)["rh_agents.delay"]) == (False, 0.0)
    assert first.start_time == tried.start_time
    assert first.end_time == second.start_time
    assert second.end_time == tried.end_time


def test_calls_side_by_side_with_one_address_have_their_own_calls_below_them() -> None:
    both: asyncio.Barrier
    live = Spans()

    @agent
    async def one_of_two(number: int) -> str:
        await both.wait()
        answer = await ask(f"what is {number}, the {TRIES[number]}th time?")
        await both.wait()
        if not TRIES[number]:
            TRIES[number] += 1
            raise ValueError("the first time")
        return answer

    @agent
    async def two(number: int) -> None:
        found = await asyncio.gather(one_of_two(1), one_of_two(2), return_exceptions=True)
        for each in found:
            if isinstance(each, Exception):
                raise each

    def callers(spans: Spans) -> dict[str, str]:
        """The keys of calls, each with that of the call around it."""
        keys = {context_of(span).span_id: about(span).get("rh_agents.key", "") for span in spans.all}
        return {
            about(span)["rh_agents.key"]: keys[span.parent.span_id] for span in spans.all if span.parent is not None
        }

    async def main() -> Exported:
        nonlocal both
        both, store = asyncio.Barrier(2), MemoryStore()
        with pytest.raises(ValueError, match="the first time"):
            await run(two, 0, run_id="monday", store=store, tracing=OTel(live.provider))
        await run(two, 0, run_id="monday", store=store, tracing=OTel(live.provider))
        return await exported(store)

    past = asyncio.run(main())
    assert len(past.named("invoke_agent one_of_two")) == 4
    assert callers(past) == callers(live)


def test_a_call_that_was_cut_off_ends_with_its_execution_and_is_made_again_as_another_span() -> None:
    @agent
    async def asks(number: int) -> str:
        await ask("first")
        answer: str = await current().run.ask("may I?", str)
        return answer

    async def main() -> Exported:
        store = MemoryStore()
        with pytest.raises(RunAwaiting):
            await run(asks, 1, run_id="monday", store=store)
        (question,) = await store.questions("monday")
        await store.answer("monday", question.id, b'"yes"')
        assert await run(asks, 1, run_id="monday", store=store) == "yes"
        past = await exported(store)
        expect_equal(past, await journal(store))
        return past

    past = asyncio.run(main())
    assert [about(span)["rh_agents.status"] for span in past.named("invoke_agent asks")] == ["awaiting", "completed"]
    assert not [span for span in past.all if "may I" in span.name], "a question is no span"


def test_what_was_under_way_when_a_process_died_ends_with_the_last_sign_of_life_of_that(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "runs.db"))
    asked = asyncio.Event()

    @agent
    async def hangs(number: int) -> None:
        await ask("first")
        asked.set()
        await asyncio.Event().wait()

    async def main() -> tuple[Exported, Exported]:
        task = asyncio.ensure_future(run(hangs, 1, run_id="monday", store=store))
        await asked.wait()
        running = await exported(store)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left = await exported(store)
        await store.aclose()
        return running, left

    running, left = asyncio.run(main())
    assert [span.name for span in running.all] == ["chat ask"], "what is under way has no span yet"
    assert {context_of(span).span_id for span in running.all} < {context_of(span).span_id for span in left.all}
    assert left.tree() == ["invoke_workflow hangs", ["invoke_agent hangs", ["chat ask"]]]
    assert about(left.one("invoke_agent hangs"))["rh_agents.status"] in ("unknown", "cancelled")


def test_members_of_a_large_group_have_traces_of_their_own_with_a_link_to_it() -> None:
    async def main() -> Exported:
        store = MemoryStore()
        await run(survey, 4, run_id="monday", store=store)
        return await exported(store, new_root_over=3)

    past = asyncio.run(main())
    members, group = past.named("invoke_agent handle"), past.one("group pages")
    assert len({context_of(span).trace_id for span in [*members, group]}) == 5
    assert all(span.parent is None for span in members)
    assert {span.links[0].context.span_id for span in members} == {context_of(group).span_id}
    assert all(len(past.children(span)) == 2 for span in members)


def test_a_copy_of_a_run_has_no_spans_of_what_it_was_copied_with(tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store(str(tmp_path / "runs.db"))
        await run(survey, 2, run_id="monday", store=store)
        (left,) = [each.key async for each in store.outcomes("monday") if each.name == "survey"]
        await store.fork_run("monday", "copy", [left], [])
        await run(survey, 2, run_id="copy", store=store)
        past = await exported(store, "copy")
        assert past.tree() == ["invoke_workflow survey", ["invoke_agent survey", ["group pages"]]]
        await store.aclose()

    asyncio.run(main())


def test_an_outcome_that_a_call_has_twice_is_a_span_of_its_own_and_takes_no_other_ones_place() -> None:
    async def main() -> list[ReadableSpan]:
        store = MemoryStore()
        await run(survey, 2, run_id="monday", store=store)
        info, events = await store.find_run("monday"), await journal(store)
        assert info is not None
        past, found = PastSpans(info, Resource.create()), list[ReadableSpan]()
        headers = [unread.header async for unread in store.unread_outcomes("monday")]
        (asked,) = [each for each in events if each.has_outcome and each.event.address == "survey::ask"]
        place = events.index(asked) + 1
        for recorded in [*events[:place], RecordedEvent(asked.sequence, asked.event, True), *events[place:]]:
            counts = recorded.has_outcome and not past.is_repeated(recorded)
            header = headers.pop(0) if counts else None
            assert header is None or header.address == recorded.event.address
            found += past.add(recorded, header)
        assert not headers
        return [*found, *past.rest()]

    spans = asyncio.run(main())
    assert len({context_of(span).span_id for span in spans}) == len(spans)
    assert [span.name for span in spans].count("chat ask") == 4


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_sends_all_spans_to_a_receiver(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "runs.db")
    asyncio.run(run(survey, 3, run_id="monday", store=url))
    with sink() as received:
        for more in ([], ["--json"]):
            assert main(["export", "monday", "--otlp", received.endpoint, "--store", url, *more]) == 0
    out, err = capfd.readouterr()
    sent = json.loads(out)
    assert (sent["schema"], sent["run_id"], sent["url"]) == ("rh-agents/spans/1", "monday", received.endpoint)

    async def read() -> list[ReadableSpan]:
        store = open_store(url)
        found = [span async for span in spans_of_run(store, "monday")]
        await store.aclose()
        return found

    spans = asyncio.run(read())
    once, twice = received.spans[: len(spans)], received.spans[len(spans) :]
    assert once == twice
    assert [
        (span.trace_id.hex(), span.span_id.hex(), span.name, span.start_time_unix_nano, span.end_time_unix_nano)
        for span in once
    ] == [
        (format_trace_id(of.trace_id), format_span_id(of.span_id), span.name, span.start_time, span.end_time)
        for span in spans
        for of in (context_of(span),)
    ]
    assert f"{len(spans)} spans of run monday sent to {received.endpoint}" in err


def test_a_receiver_that_refuses_is_an_error_that_says_what_arrived() -> None:
    class Refuses(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.FAILURE

    async def main() -> None:
        store = MemoryStore()
        await run(survey, 1, run_id="monday", store=store)
        with pytest.raises(NotExported, match="took no span: see whether it is there"):
            await export_run(store, "monday", Refuses())

    asyncio.run(main())


def test_the_command_says_which_receiver_did_not_take_the_spans(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "runs.db")
    asyncio.run(run(survey, 1, run_id="monday", store=url))
    with sink() as received:
        received.answer = 400
        assert main(["export", "monday", "--otlp", received.endpoint, "--store", url]) == 1
    assert f"--otlp {received.endpoint}: the receiver took no span: see whether" in capfd.readouterr().err


def test_a_receiver_that_is_not_there_is_named_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter([0.0, 2.0, 6.0, 7.0, 61.0])
    logger = logging.getLogger("rh_agents.tests.exporter")
    sparing = Sparing(clock=lambda: next(seconds))
    logger.addFilter(sparing)
    try:
        for wait in (1.2, 1.6, 4.7):
            logger.warning("Transient error %s, retrying in %.2fs.", "refused", wait)
        logger.error("Failed to export %s batch", "spans")
        logger.warning("Transient error %s, retrying in %.2fs.", "refused", 1.0)
    finally:
        logger.removeFilter(sparing)
    assert [record.getMessage() for record in caplog.records] == [
        "Transient error refused, retrying in 1.20s.",
        "Failed to export spans batch",
        "Transient error refused, retrying in 1.00s.",
    ]


def test_wrong_addresses_and_options_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="write it as in http://localhost:4318"):
        otlp_exporter("localhost:4318")
    url = str(tmp_path / "runs.db")
    asyncio.run(run(survey, 1, run_id="monday", store=url))
    assert main(["export", "monday", "--otlp", "http://x", "--outcomes", "--store", url]) == 2
    assert "give one of them" in capfd.readouterr().err


def test_half_a_character_in_a_name_or_an_error_costs_no_span() -> None:
    """Names of files have them, where they are no UTF-8. Receivers are sent UTF-8."""
    encode = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder").encode_spans
    half, live = "a\udcff.txt", Spans()

    @tool
    async def refuse() -> None:
        raise ValueError(half)

    async def flow() -> None:
        async with parallel(name=half) as p:
            p.add(refuse())

    async def main() -> Exported:
        store = MemoryStore()
        with pytest.raises(UnreadFailures):
            await run(flow, store=store, run_id="monday", tracing=OTel(live.provider))
        return await exported(store)

    for spans in (asyncio.run(main()).all, live.all):
        encode(spans)
        assert "group a\\udcff.txt" in {span.name for span in spans}
        assert any("a\\udcff.txt" in (span.status.description or "") for span in spans)
