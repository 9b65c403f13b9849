"""`run(..., tracing=OTel())`: each call has one span with the right parent, and what was not made has none."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import Any

import pytest

from rh_agents import (
    ConcurrencyLimit,
    ExecutionState,
    MemoryStore,
    RetryPolicy,
    RunAwaiting,
    Usage,
    agent,
    current,
    forget_secret,
    llm,
    open_store,
    parallel,
    register_secret,
    report_usage,
    run,
    tool,
)
from rh_agents.core.context import trace_headers
from rh_agents.core.errors import CallTimeout, DefinitionError, UsageError

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import format_span_id, format_trace_id

from rh_agents.telemetry.otel import OTel
from tests.telemetry.kit import Spans, context_of, is_error

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0)
TRIES: dict[int, int] = {}


def here() -> str:
    """The id of the span that is current."""
    return format_span_id(trace.get_current_span().get_span_context().span_id)


@pytest.fixture
def spans() -> Spans:
    TRIES.clear()
    return Spans()


@tool
async def look(number: int) -> str:
    return here()


@tool(retry=AT_ONCE)
async def flaky(number: int) -> str:
    TRIES[number] = TRIES.get(number, 0) + 1
    if TRIES[number] < 2:
        raise ValueError("not yet")
    return here()


@tool
def in_a_thread(number: int) -> str:
    return here()


@llm
async def ask(question: str) -> str:
    report_usage(Usage(input_tokens=10, output_tokens=5, requests=1, cost=0.25))
    return question


@agent
async def handle(number: int) -> str:
    await look(number)
    return await ask(f"what is {number}?")


@agent
async def survey(count: int) -> int:
    async with parallel(max_workers=3, name="pages") as p:
        for number in range(count):
            p.add(handle(number))
        return len(await p.gather())


def test_a_run_is_a_tree_of_its_agents_groups_members_tools_and_questions_to_models(spans: Spans) -> None:
    asyncio.run(run(survey, 2, tracing=OTel(spans.provider)))
    member = ["execute_tool look", "chat ask"]
    assert spans.tree() == [
        "invoke_workflow survey",
        ["invoke_agent survey", ["group pages", ["invoke_agent handle", member, "invoke_agent handle", member]]],
    ]


def test_spans_have_the_names_of_the_conventions_and_say_where_they_are(spans: Spans) -> None:
    asyncio.run(run(survey, 1, run_id="monday", store=MemoryStore(), tracing=OTel(spans.provider)))
    about = dict(spans.one("chat ask").attributes or {})
    key = about.pop("rh_agents.key")
    assert isinstance(key, str)
    assert about == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "ask",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "rh_agents.usage.cost": 0.25,
        "rh_agents.run.id": "monday",
        "rh_agents.address": "survey::pages[0]::handle::ask",
        "rh_agents.status": "completed",
    }
    scope = spans.one("chat ask").instrumentation_scope
    assert scope is not None
    assert scope.schema_url == "https://opentelemetry.io/schemas/gen-ai/1.42.0"
    group = dict(spans.one("group pages").attributes or {})
    assert (group["rh_agents.group.completed"], group["rh_agents.recovered"]) == (1, 0)


def test_a_further_attempt_is_a_span_with_its_delay_and_the_one_before_has_its_error(spans: Spans) -> None:
    async def main() -> str:
        async with ExecutionState(tracing=OTel(spans.provider)):
            return await flaky(1)

    seen = asyncio.run(main())
    first, second = spans.children(spans.one("execute_tool flaky"))
    assert (first.name, second.name) == ("attempt 1", "attempt 2")
    assert is_error(first)
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert first.status.description == "ValueError: not yet"
    assert (second.attributes or {})["rh_agents.delay"] == 0.0
    assert not is_error(second)
    assert seen == format_span_id(context_of(second).span_id), "the attempt is the current span in the function"
    assert [event.name for event in spans.one("execute_tool flaky").events] == ["retry"]


def test_an_attempt_that_took_too_long_says_so(spans: Spans) -> None:
    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=0.0), timeout=0.01)
    async def slow(number: int) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with ExecutionState(tracing=OTel(spans.provider)):
            with pytest.raises(CallTimeout):
                await slow(1)

    asyncio.run(main())
    kinds = [(span.attributes or {})["error.type"] for span in spans.children(spans.one("execute_tool slow"))]
    assert kinds == ["CallTimeout"] * 2


def test_the_span_is_the_current_one_in_threads_and_the_one_around_is_again_afterwards(spans: Spans) -> None:
    @agent
    async def outer(number: int) -> bool:
        before = here()
        inner = await in_a_thread(number)
        return inner != before and here() == before

    assert asyncio.run(run(outer, 1, tracing=OTel(spans.provider)))
    assert spans.tree() == ["invoke_workflow outer", ["invoke_agent outer", ["execute_tool in_a_thread"]]]


def test_spans_that_the_program_makes_nest_among_ours(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("program")

    @agent
    async def outer(number: int) -> None:
        with tracer.start_as_current_span("a step"):
            await look(number)

    async def main() -> None:
        with tracer.start_as_current_span("request"):
            await run(outer, 1, tracing=OTel(spans.provider))

    asyncio.run(main())
    assert spans.tree() == [
        "request",
        ["invoke_workflow outer", ["invoke_agent outer", ["a step", ["execute_tool look"]]]],
    ]


def test_a_call_that_knows_its_run_only_by_the_state_is_below_the_run(spans: Spans) -> None:
    async def with_an_empty_context() -> None:
        async with ExecutionState(tracing=OTel(spans.provider)) as state:

            async def call() -> None:
                async with state.parallel(name="late") as p:
                    p.add(look(1))
                    await p.gather()

            await asyncio.get_running_loop().create_task(call(), context=Context())

    asyncio.run(with_an_empty_context())
    assert spans.tree() == ["invoke_workflow run", ["group late", ["execute_tool look"]]]


def test_a_resumed_run_links_to_the_trace_before_and_counts_what_it_recovers(spans: Spans) -> None:
    async def main() -> None:
        store = MemoryStore()
        for _ in range(2):
            await run(survey, 3, run_id="monday", store=store, tracing=OTel(spans.provider))

    asyncio.run(main())
    first, second = spans.named("invoke_workflow survey")
    assert len(spans.named("chat ask")) == 3
    assert [each.context.trace_id for each in second.links] == [context_of(first).trace_id]
    assert context_of(second).trace_id != context_of(first).trace_id
    assert (second.attributes or {})["rh_agents.recovered"] == 1
    assert first.links == ()


def test_of_which_actors_calls_were_recovered_is_said_on_request(spans: Spans) -> None:
    async def main(**options: Any) -> list[tuple[Any, Any]]:
        store = MemoryStore()
        for _ in range(2):
            spans.clear()
            await run(survey, 3, run_id="monday", store=store, tracing=OTel(spans.provider, **options))
        events = spans.one("invoke_workflow survey").events
        return [(each.name, dict(each.attributes or {})) for each in events]

    assert asyncio.run(main()) == []
    about = {"rh_agents.actor": "survey", "rh_agents.recovered": 1}
    assert asyncio.run(main(recovered=True)) == [("recovered", about)]


def test_members_that_are_recovered_have_no_span_and_are_counted_on_their_group(spans: Spans) -> None:
    @agent
    async def fails_later(count: int) -> None:
        async with parallel(name="pages") as p:
            for number in range(count):
                p.add(look(number))
            await p.gather()
        if len(TRIES) == 0:
            TRIES[0] = 1
            raise ValueError("after the group")

    async def main() -> None:
        store = MemoryStore()
        with pytest.raises(ValueError, match="after the group"):
            await run(fails_later, 3, run_id="monday", store=store, tracing=OTel(spans.provider))
        spans.clear()
        await run(fails_later, 3, run_id="monday", store=store, tracing=OTel(spans.provider))

    asyncio.run(main())
    assert spans.tree() == ["invoke_workflow fails_later", ["invoke_agent fails_later", ["group pages"]]]
    assert (spans.one("group pages").attributes or {})["rh_agents.recovered"] == 3


def test_the_journal_has_the_context_of_each_start_once_and_none_without_a_tracer(tmp_path: Any) -> None:
    spans, path = Spans(), str(tmp_path / "runs.db")

    async def main() -> list[Any]:
        await run(survey, 1, run_id="plain", store=path)
        for _ in range(2):
            await run(survey, 1, run_id="traced", store=path, tracing=OTel(spans.provider))
        store = open_store(path)
        found = [
            [each.event.control async for each in store.events(name) if each.event.control is not None]
            for name in ("plain", "traced")
        ]
        await store.aclose()
        return found

    plain, traced = asyncio.run(main())
    roots = [format_trace_id(context_of(span).trace_id) for span in spans.named("invoke_workflow survey")]
    assert plain == []
    assert [each["arguments"]["context"]["traceparent"].split("-")[1] for each in traced] == roots


def test_what_is_around_the_first_start_is_its_parent_and_around_a_later_one_a_link(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("program")

    async def main() -> None:
        store = MemoryStore()
        for name in ("first request", "second request"):
            with tracer.start_as_current_span(name):
                await run(survey, 1, run_id="monday", store=store, tracing=OTel(spans.provider))

    asyncio.run(main())
    first, second = spans.named("invoke_workflow survey")
    assert first.parent is not None
    assert second.parent is None
    assert {each.context.span_id for each in second.links} == {
        context_of(first).span_id,
        context_of(spans.one("second request")).span_id,
    }


def test_members_of_a_large_group_have_traces_of_their_own_with_a_link_to_it(spans: Spans) -> None:
    @agent
    async def flow(count: int) -> None:
        async with parallel(name="pages") as p:
            p.map(look, range(count))
            await p.gather()

    asyncio.run(run(flow, 4, tracing=OTel(spans.provider, new_root_over=3)))
    group = spans.one("group pages")
    members = spans.named("execute_tool look")
    assert len({context_of(each).trace_id for each in members}) == 4
    assert all(each.parent is None for each in members)
    assert {each.links[0].context.span_id for each in members} == {context_of(group).span_id}
    spans.clear()
    asyncio.run(run(flow, 3, tracing=OTel(spans.provider, new_root_over=3)))
    assert len(spans.children(spans.one("group pages"))) == 3


def test_with_detail_groups_nothing_within_a_member_is_told(spans: Spans) -> None:
    asyncio.run(run(survey, 3, tracing=OTel(spans.provider, detail="groups")))
    assert spans.tree() == ["invoke_workflow survey", ["invoke_agent survey", ["group pages"]]]


def test_with_detail_calls_there_are_no_spans_of_attempts(spans: Spans) -> None:
    async def main() -> None:
        async with ExecutionState(tracing=OTel(spans.provider, detail="calls")):
            await flaky(1)

    asyncio.run(main())
    assert spans.tree() == ["invoke_workflow run", ["execute_tool flaky"]]


def test_a_trace_that_is_not_sampled_has_no_spans_and_its_requests_say_so() -> None:
    spans, seen = Spans(ALWAYS_OFF), []

    @tool
    async def request(number: int) -> None:
        seen.append(trace_headers()["traceparent"])

    async def main() -> None:
        async with ExecutionState(tracing=OTel(spans.provider)):
            await request(1)

    asyncio.run(main())
    assert spans.all == ()
    assert int(seen[0][-2:], 16) & 1 == 0, "the flag for sampled is not set"


def test_what_waited_for_a_limit_says_for_how_long_and_for_which(spans: Spans) -> None:
    limit = ConcurrencyLimit(1, name="server")

    @tool(limits=limit)
    async def limited(number: int) -> None:
        await asyncio.sleep(0.01)

    @agent
    async def flow(count: int) -> None:
        async with parallel(name="pages") as p:
            p.map(limited, range(count))
            await p.gather()

    asyncio.run(run(flow, 2, tracing=OTel(spans.provider)))
    events = [event for span in spans.named("execute_tool limited") for event in span.events]
    (event,) = events
    about = dict(event.attributes or {})
    assert event.name == "waited"
    assert about["rh_agents.limiter"] == "server"
    assert float(str(about["rh_agents.seconds"])) > 0


def test_usage_of_what_is_no_question_to_a_model_has_other_names(spans: Spans) -> None:
    @tool
    async def translate(number: int) -> None:
        report_usage(Usage(input_tokens=3, cost=0.5))

    async def main() -> None:
        async with ExecutionState(tracing=OTel(spans.provider)):
            await translate(1)

    asyncio.run(main())
    about = spans.one("execute_tool translate").attributes or {}
    assert about["rh_agents.usage.cost"] == 0.5
    assert not [name for name in about if name.startswith("gen_ai.usage")]


def test_a_cached_call_has_no_span_and_is_counted(spans: Spans) -> None:
    @tool(cache="run")
    async def cached(number: int) -> int:
        return number

    async def main() -> None:
        async with ExecutionState(store=MemoryStore(), tracing=OTel(spans.provider)):
            await cached(1)
            await cached(1)

    asyncio.run(main())
    assert len(spans.named("execute_tool cached")) == 1
    assert (spans.one("invoke_workflow run").attributes or {})["rh_agents.cached"] == 1


def test_a_question_is_no_open_span_and_what_asks_it_waits(spans: Spans) -> None:
    @agent
    async def asks(number: int) -> str:
        answer: str = await current().run.ask("may I?", str)
        return answer

    async def main() -> None:
        store = MemoryStore()
        with pytest.raises(RunAwaiting):
            await run(asks, 1, run_id="monday", store=store, tracing=OTel(spans.provider))

    asyncio.run(main())
    assert spans.tree() == ["invoke_workflow asks", ["invoke_agent asks"]]
    assert (spans.one("invoke_agent asks").attributes or {})["rh_agents.status"] == "awaiting"
    assert (spans.one("invoke_workflow asks").attributes or {})["rh_agents.status"] == "awaiting"
    assert not any(map(is_error, spans.all))


def test_a_run_that_fails_says_why_without_secrets(spans: Spans) -> None:
    register_secret("db-password", "hunter2hunter2")

    @tool
    async def connect(number: int) -> None:
        raise OSError("no such user: hunter2hunter2")

    @agent
    async def flow(number: int) -> None:
        await connect(number)

    try:
        with pytest.raises(OSError, match="no such user"):
            asyncio.run(run(flow, 1, tracing=OTel(spans.provider, content=True)))
    finally:
        forget_secret("db-password")
    failed = [span for span in spans.all if is_error(span)]
    assert len(failed) == 3
    assert {span.status.description for span in failed} == {"OSError: no such user: <secret:db-password>"}


def test_contents_are_told_only_where_that_is_wanted(spans: Spans) -> None:
    async def main(*, content: bool) -> dict[str, Any]:
        spans.clear()
        async with ExecutionState(tracing=OTel(spans.provider, content=content)):
            await flaky(1)
        return dict(spans.one("execute_tool flaky").attributes or {})

    assert not [name for name in asyncio.run(main(content=False)) if "argument" in name or "result" in name]
    about = asyncio.run(main(content=True))
    assert about["gen_ai.tool.call.arguments"] == '{"number":1}'
    assert "gen_ai.tool.call.result" in about


def test_a_group_that_fails_fast_ends_all_its_spans(spans: Spans) -> None:
    @tool
    async def hangs(number: int) -> None:
        if number == 0:
            await asyncio.sleep(0.01)
            raise ValueError("the first")
        await asyncio.sleep(60)

    @agent
    async def flow(count: int) -> None:
        async with parallel(name="pages", error_strategy="fail_fast") as p:
            p.map(hangs, range(count))
            await p.gather()

    with pytest.raises(ValueError, match="the first"):
        asyncio.run(run(flow, 3, tracing=OTel(spans.provider)))
    statuses = sorted(str((span.attributes or {})["rh_agents.status"]) for span in spans.named("execute_tool hangs"))
    assert statuses == ["cancelled", "cancelled", "failed"]
    assert is_error(spans.one("group pages"))
    assert len(spans.children(spans.one("group pages"))) == 3


# -- what is wrong with a tracer, or with how it is named --------------------------------------------------------------


class Broken:
    """Raises at everything, from the given method on."""

    def __init__(self, fails_at: str) -> None:
        self._fails_at = fails_at
        self.calls = 0

    def run(self, about: Any) -> Any:
        self._at("run")
        return self

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any) -> Any:
            self._at(name)
            return self

        return method

    def __enter__(self) -> Broken:
        self._at("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._at("exit")

    @property
    def context(self) -> dict[str, str]:
        self._at("context")
        return {}

    def carrier(self) -> dict[str, str]:
        self._at("carrier")
        return {}

    def _at(self, name: str) -> None:
        self.calls += 1
        if name == self._fails_at or self._fails_at == "everything":
            raise RuntimeError("the tracer is broken")


@pytest.mark.parametrize(
    "fails_at",
    ["everything", "run", "enter", "exit", "context", "carrier", "group", "call", "attempt", "retries", "ended"],
)
def test_a_tracer_that_raises_changes_no_result_and_is_logged_once(
    fails_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    TRIES.clear()
    tracer = Broken(fails_at)

    @agent
    async def flow(number: int) -> int:
        await flaky(number)
        current()
        async with parallel(name="pages") as p:
            p.map(look, range(3))
            return len(await p.gather())

    async def main() -> int:
        async with ExecutionState(tracing=tracer) as state:
            await flow(1)
            result = await flow(2)
        assert state.parts.tracing is not None
        assert state.parts.tracing.errors > 0
        return result

    with caplog.at_level(logging.WARNING, "rh_agents"):
        assert asyncio.run(main()) == 3
    assert len([each for each in caplog.records if "the tracer is broken" in each.getMessage()]) == 1


def test_a_tracer_that_cannot_count_commits_stops_no_run(tmp_path: Any) -> None:
    async def main() -> int:
        async with ExecutionState(store=str(tmp_path / "runs.db"), tracing=Broken("committed")) as state:
            await look(1)
        assert state.parts.tracing is not None
        return state.parts.tracing.errors

    assert asyncio.run(main()) > 0


def test_a_tracer_that_blocks_is_given_up_and_the_spans_around_are_put_back(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    ended: list[str] = []

    class Hangs(SpanProcessor):
        def on_end(self, span: Any) -> None:
            ended.append(span.name)
            now[0] += 5

    spans.provider.add_span_processor(Hangs())

    @agent
    async def looks(count: int) -> None:
        within = here()
        async with parallel(max_workers=1, name="pages") as p:
            p.map(look, range(count))
            await p.gather()
        assert here() == within, "the group has put back what was around it"

    async def main() -> str:
        outside = here()
        async with ExecutionState(tracing=OTel(spans.provider)):
            around = here()
            await looks(5)
            assert here() == around, "and so has the agent"
        assert here() == outside
        return "done"

    with caplog.at_level(logging.WARNING, "rh_agents"):
        assert asyncio.run(main()) == "done"
    assert ended == ["execute_tool look"] * 3
    assert len([each for each in caplog.records if "BatchSpanProcessor" in each.getMessage()]) == 1


def test_a_provider_that_was_shut_down_changes_nothing(spans: Spans) -> None:
    spans.provider.shutdown()
    assert asyncio.run(run(survey, 2, tracing=OTel(spans.provider))) == 2


def test_the_environment_says_how_runs_are_traced_that_do_not_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_AGENTS_TRACING", "oetl")
    with pytest.raises(UsageError, match="RH_AGENTS_TRACING='oetl' is no way to trace a run: it is 'otel' or 'none'"):
        ExecutionState()
    assert ExecutionState(tracing=False).parts.tracing is None
    monkeypatch.setenv("RH_AGENTS_TRACING", "none")
    assert ExecutionState().parts.tracing is None


def test_wrong_options_are_refused() -> None:
    with pytest.raises(DefinitionError, match="it is 'attempts', 'calls' or 'groups'"):
        OTel(detail="all")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="give 0 or more"):
        OTel(new_root_over=-1)


def test_without_an_sdk_nothing_is_traced_and_nothing_is_sent() -> None:
    async def main() -> dict[str, str]:
        async with ExecutionState(tracing=OTel(trace.NoOpTracerProvider())):
            await look(1)
            return trace_headers()

    assert asyncio.run(main()) == {}
